"""From an object store to a local folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from model_trainer.messages import shown
from model_trainer.storage.objects.reader import read_object
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.writer import PART_BYTES
from model_trainer.storage.sync.etags import have_etag, pieces_of
from model_trainer.storage.sync.listing import Entry, Report, list_local, list_store, nanoseconds
from model_trainer.storage.sync.obstacles import through_link
from model_trainer.storage.sync.partial import PartialFile, delete_partial_files
from model_trainer.storage.sync.ranges import RangedDownload
from model_trainer.storage.sync.transfer import Transfer, Work
from model_trainer.storage.sync.upload import url_below

__all__ = ["Download", "is_inside"]

RANGES_AT_ONCE = 8  # of the same object
SAME_TIME_NS = 1_000_000_000  # some file systems keep whole seconds


class Download(Transfer):
    """Copies objects to files, which get the objects' times.

    A file is written under a temporary name, verified, and renamed.
    """

    deleted_at_once = 1
    is_tree = True

    def __init__(self, store: ObjectStore, source: str, target: str) -> None:
        self.source, self.target = source, target
        self._store = store
        self._url, self._bucket = store.locate(source)
        self._folders: set[str] = set()
        self._source_folders: set[str] = set()
        self._partial_files: list[str] = []

    def sources(self, report: Report) -> Iterator[Entry]:
        for entry in list_store(self._store, self.source):
            if entry.is_folder:
                self._source_folders.add(entry.name)
            yield entry

    def targets(self, report: Report) -> Iterator[Entry]:
        if not os.path.lexists(self.target):
            return iter(())
        return list_local(self.target, report, self._partial_files, follow_links=False)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return abs(existing.time_ns - entry.time_ns) < SAME_TIME_NS

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return have_etag(pieces_of(self._path(entry), work.check), entry.size, entry.etag)

    def keep(self, entry: Entry) -> None:
        if not os.path.islink(self._path(entry)):  # the file to which it leads is not in the target
            os.utime(self._path(entry), ns=(entry.time_ns, entry.time_ns))

    def copy(self, entry: Entry, work: Work) -> None:
        work.check()
        if not is_inside(entry.name):
            raise OSError(errno.EINVAL, "It would be outside of the folder", entry.name)
        path = self._path(entry)
        if entry.is_folder:
            self._make_folder(entry.name)
            return
        self._make_folder(entry.name.rpartition("/")[0])
        if entry.size <= PART_BYTES:
            self._copy_small(entry, path, work)
        else:
            url = url_below(self._url, entry.name)
            RangedDownload(self._bucket, url, entry, path).run(work, RANGES_AT_ONCE)

    def delete(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.is_folder:
                os.rmdir(self._path(entry))
            else:
                os.unlink(self._path(entry))
            self._delete_empty_folders(entry.name.rpartition("/")[0])

    def clear(self) -> None:
        delete_partial_files(self._partial_files)

    def _copy_small(self, entry: Entry, path: str, work: Work) -> None:
        content, meta = read_object(self._bucket, url_below(self._url, entry.name))
        with PartialFile(path) as partial:
            partial.write(content)
            partial.finish(nanoseconds(meta["last_modified"]))
        work.moved(len(content))

    def _make_folder(self, name: str) -> None:
        """Makes a folder below the target and its parents, none of them through a link."""
        if name in self._folders:
            return
        if name:
            self._make_folder(name.rpartition("/")[0])
            path = os.path.join(self.target, name)
            try:
                os.mkdir(path)
            except FileExistsError:
                mode = os.lstat(path).st_mode
                if not stat.S_ISDIR(mode):
                    reason = (
                        through_link(name) if stat.S_ISLNK(mode) else f"{shown(name)} is not a folder in the target"
                    )
                    raise OSError(errno.ENOTDIR, reason, path) from None
        else:
            os.makedirs(self.target, exist_ok=True)
        self._folders.add(name)

    def _delete_empty_folders(self, name: str) -> None:
        """Deletes a folder if it is empty and the source does not have it, and then its parents below the target."""
        while name and name not in self._source_folders:
            try:
                os.rmdir(os.path.join(self.target, name))
            except OSError:
                return
            self._folders.discard(name)
            name = name.rpartition("/")[0]

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.target, entry.name)


def is_inside(name: str) -> bool:
    """Whether a key, as a path in the target, stays below the target on this operating system."""
    names = name.replace("\\", "/").split("/") if os.name == "nt" else name.split("/")
    return not {"", ".", ".."} & set(names) and "\0" not in name and not os.path.splitdrive(name)[0]
