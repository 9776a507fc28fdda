"""From an object store to a local folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.sync.listing import Entry, Report, list_local, list_store
from model_trainer.storage.sync.partial import PartialFile, delete_partial_files
from model_trainer.storage.sync.ranges import RangedDownload
from model_trainer.storage.sync.tags import PART_BYTES, TagTrust, have_tag, pieces_of
from model_trainer.storage.sync.transfer import Transfer, Work
from model_trainer.storage.sync.upload import url_below
from model_trainer.storage.sync.verified import get_object

__all__ = ["Download"]

RANGES_AT_ONCE = 8  # of the same object
SAME_TIME_NS = 1_000_000_000  # some file systems keep whole seconds


class Download(Transfer):
    """Copies objects to files, which get the objects' times.

    A file is written under a temporary name, verified, and renamed.
    """

    deleted_at_once = 1

    def __init__(self, store: ObjectStore, source: str, target: str) -> None:
        self.source, self.target = source, target
        self._store = store
        self._url, self._bucket = store.locate(source)
        self._trust = TagTrust()
        self._folders: set[str] = set()
        self._partial_files: list[str] = []

    def sources(self, report: Report) -> Iterator[Entry]:
        return list_store(self._store, self.source)

    def targets(self, report: Report) -> Iterator[Entry]:
        if not os.path.lexists(self.target):
            return iter(())
        return list_local(self.target, report, self._partial_files)

    def is_current(self, entry: Entry, existing: Entry) -> bool:
        return abs(existing.time_ns - entry.time_ns) < SAME_TIME_NS

    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        return have_tag(pieces_of(self._path(entry), work.check), entry.size, entry.tag)

    def keep(self, entry: Entry) -> None:
        os.utime(self._path(entry), ns=(entry.time_ns, entry.time_ns))

    def copy(self, entry: Entry, work: Work) -> None:
        work.check()
        if not _is_inside(entry.name):
            raise OSError(errno.EINVAL, "It would be outside of the folder", entry.name)
        path = self._path(entry)
        if entry.is_folder:
            os.makedirs(path, exist_ok=True)
            return
        self._make_folder(os.path.dirname(path))
        if entry.size <= PART_BYTES:
            self._copy_small(entry, path, work)
        else:
            url = url_below(self._url, entry.name)
            RangedDownload(self._bucket, url, entry, path, self._trust).run(work, RANGES_AT_ONCE)

    def delete(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.is_folder:
                os.rmdir(self._path(entry))
            else:
                os.unlink(self._path(entry))
            _delete_empty_folders(os.path.dirname(self._path(entry)), self.target)

    def clear(self) -> None:
        delete_partial_files(self._partial_files)

    def _copy_small(self, entry: Entry, path: str, work: Work) -> None:
        url = url_below(self._url, entry.name)
        try:
            content, time_ns = get_object(self._bucket, url, self._trust)
        except FileNotFoundError:
            if entry.size:
                raise
            # The mark of an empty folder that other programs make: an object whose key ends with a slash.
            os.makedirs(path, exist_ok=True)
            return
        with PartialFile(path) as partial:
            partial.write(content)
            partial.finish(time_ns)
        work.moved(len(content))

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.target, entry.name)


def _is_inside(name: str) -> bool:
    """Whether a key leads to a path below the folder, on any system."""
    names = name.replace("\\", "/").split("/") if os.name == "nt" else name.split("/")
    return not {"", ".", ".."} & set(names) and "\0" not in name and not os.path.splitdrive(name)[0]


def _delete_empty_folders(folder: str, top: str) -> None:
    """Deletes a folder if it is empty, and then its parents below `top`."""
    while len(folder) > len(top):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)
