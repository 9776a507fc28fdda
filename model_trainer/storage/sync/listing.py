"""What the two sides of a synchronization contain: files and empty folders, by their names below the folder."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.errors import DeniedError
from model_trainer.storage.objects.locks import LOCK
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import MARKER, ObjectUrl
from model_trainer.storage.sync.partial import is_partial

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["Entry", "Report", "list_local", "list_store", "nanoseconds"]

PAGE = 1000  # objects in one answer of a store
HEADS_AT_ONCE = 32
# Files that are being written, by this command and by `files.atomic_write`.
_PARTIAL = re.compile(r"\..*\.partial(-\d+)?(\.[^.]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HAS_CONTROL = "Its name contains a control character, which is not supported; rename it"

Report = Callable[[str, str], None]


class Entry(NamedTuple):
    """A file, or an empty folder.

    Attributes:
        name: path below the folder that is synchronized, with "/" between its parts.
        size: in bytes; -1 for an empty folder, -2 for a link that does not lead to a file.
        time_ns: modification time, in nanoseconds since 1970.
        etag: ETag of an object, as the store writes it; a folder has one only if another program marked it; else "".
        is_link: whether it is a link, in a target; its size and time are those of the file to which it leads.
    """

    name: str
    size: int
    time_ns: int
    etag: str = ""
    is_link: bool = False

    @property
    def is_folder(self) -> bool:
        return self.size == -1

    @property
    def key(self) -> str:
        """The name, with "/" at the end of a folder's."""
        return f"{self.name}/" if self.is_folder else self.name


def list_local(
    folder: str, report: Report, partial_files: list[str] | None = None, follow_links: bool = True
) -> Iterator[Entry]:
    """The entries below a local folder, which itself may be a link.

    Args:
        folder: path.
        report: called with the name of each entry that cannot be copied, and the reason.
        partial_files: gets the paths of the temporary files of this command.
        follow_links: whether links below the folder are followed; otherwise each is an entry.
    """
    return _Walk(report, [] if partial_files is None else partial_files, follow_links).entries(folder)


class _Walk(NamedTuple):
    report: Report
    partial_files: list[str]
    follow_links: bool

    def entries(self, folder: str, prefix: str = "", parents: tuple[tuple[int, int], ...] = ()) -> Iterator[Entry]:
        try:
            status = os.stat(folder)
            with os.scandir(folder) as scan:
                children = sorted(scan, key=lambda child: child.name)
        except OSError as error:
            self.report(prefix.rstrip("/"), error.strerror or str(error))
            return
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            self.report(prefix.rstrip("/"), "It is a link to a folder that contains it")
            return
        if not children and prefix:
            yield Entry(prefix.rstrip("/"), -1, 0)
        for child in children:
            name = f"{prefix}{child.name}"
            if child.name in (MARKER, LOCK) or _PARTIAL.fullmatch(child.name):
                if is_partial(child.name):
                    self.partial_files.append(child.path)
                continue
            try:
                child.name.encode()
                if _CONTROL.search(child.name):
                    self.report(name, _HAS_CONTROL)
                    continue
                if child.is_dir(follow_symlinks=self.follow_links):
                    yield from self.entries(child.path, f"{name}/", (*parents, identity))
                    continue
                if not self.follow_links and child.is_symlink():
                    yield _link(child, name)
                    continue
                status = child.stat()
            except UnicodeEncodeError:
                self.report(name, "Its name is not UTF-8, which a key has to be")
            except OSError as error:
                self.report(name, error.strerror or str(error))
            else:
                if stat.S_ISREG(status.st_mode):
                    yield Entry(name, status.st_size, status.st_mtime_ns)
                else:
                    self.report(name, "It is neither a file nor a folder")


def _link(child: os.DirEntry[str], name: str) -> Entry:
    with contextlib.suppress(OSError):
        status = child.stat()
        if stat.S_ISREG(status.st_mode):
            return Entry(name, status.st_size, status.st_mtime_ns, is_link=True)
    return Entry(name, -2, 0, is_link=True)


def list_store(store: ObjectStore, folder: str) -> Iterator[Entry]:
    """The entries below a folder of an object store, page by page; none if there is no such folder in the bucket.

    Raises:
        OSError: the store refuses it, or does not answer.
    """
    import obstore

    url, bucket = store.locate(folder)
    start = len(url.key) + 1 if url.key else 0
    pages = iter(bucket.call(url, lambda: obstore.list(bucket.store, url.key or None, chunk_size=PAGE)))
    while True:
        page = bucket.call(url, lambda: next(pages, None))
        if page is None:
            return
        marks = _marks_among(page, bucket, url)
        for meta in page:
            name = meta["path"][start:]
            folder_name, _, last = name.rpartition("/")
            if not last or _is_skipped(folder_name if last == MARKER else name):
                continue
            time_ns = nanoseconds(meta["last_modified"])
            if meta["path"] in marks:
                yield Entry(name, -1, time_ns, meta["e_tag"] or "")
            elif last != MARKER:
                yield Entry(name, meta["size"], time_ns, meta["e_tag"] or "")
            elif folder_name:
                yield Entry(folder_name, -1, time_ns)


def _is_skipped(name: str) -> bool:
    """Whether an entry has, or is in a folder that has, a name that is not copied from a local folder either."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part in (MARKER, LOCK) or _PARTIAL.fullmatch(part) for part in name.split("/"))


def _marks_among(page: Iterable[ObjectMeta], bucket: Bucket, url: ObjectUrl) -> set[str]:
    """The folders that other programs have marked by an empty object whose key ends with a slash.

    obstore lists it without the slash, so that only a HEAD request shows whether the key without the slash exists too.
    """
    empty = [meta["path"] for meta in page if not meta["size"] and meta["path"] != url.key]
    empty = [key for key in empty if key.rpartition("/")[2] != MARKER]
    if not empty:
        return set()

    def is_mark(key: str) -> bool:
        try:
            bucket.head(url._replace(key=key))
        except FileNotFoundError:
            return True
        except DeniedError:
            return False
        return False

    threads = ThreadPoolExecutor(min(len(empty), HEADS_AT_ONCE))
    try:
        return {key for key, marked in zip(empty, threads.map(is_mark, empty), strict=True) if marked}
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def nanoseconds(time: datetime) -> int:
    """The time of an object as the time of a file, in nanoseconds since 1970."""
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1000
