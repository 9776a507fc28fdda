"""What the two sides of a synchronization contain: files and empty folders, by their names below the folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from model_trainer.storage.objects.locks import LOCK
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import MARKER
from model_trainer.storage.sync.partial import is_partial

__all__ = ["Entry", "Report", "list_local", "list_store", "nanoseconds"]

PAGE = 1000  # objects in one answer of a store
# Files that are being written, by this command and by `files.atomic_write`.
_PARTIAL = re.compile(r"\..*\.partial(-\d+)?(\.[^.]*)?")

Report = Callable[[str, str], None]


class Entry(NamedTuple):
    """A file, or an empty folder.

    Attributes:
        name: path below the folder that is synchronized, with "/" between its parts.
        size: in bytes; -1 for an empty folder.
        time_ns: modification time, in nanoseconds since 1970.
        tag: ETag of an object, as the store writes it; empty for a local file.
    """

    name: str
    size: int
    time_ns: int
    tag: str = ""

    @property
    def is_folder(self) -> bool:
        return self.size < 0


def list_local(folder: str, report: Report, partial_files: list[str] | None = None) -> Iterator[Entry]:
    """The entries below a local folder, following links.

    Args:
        folder: path.
        report: called with the name of each entry that cannot be copied, and the reason.
        partial_files: gets the paths of the temporary files of this command.
    """
    return _walk(folder, "", (), report, [] if partial_files is None else partial_files)


def _walk(
    folder: str, prefix: str, parents: tuple[tuple[int, int], ...], report: Report, partial_files: list[str]
) -> Iterator[Entry]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as scan:
            children = sorted(scan, key=lambda child: child.name)
    except OSError as error:
        report(prefix.rstrip("/"), error.strerror or str(error))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        report(prefix.rstrip("/"), "It is a link to a folder that contains it")
        return
    if not children and prefix:
        yield Entry(prefix.rstrip("/"), -1, 0)
    for child in children:
        name = f"{prefix}{child.name}"
        if child.name in (MARKER, LOCK) or _PARTIAL.fullmatch(child.name):
            if is_partial(child.name):
                partial_files.append(child.path)
            continue
        try:
            child.name.encode()
            if child.is_dir():
                yield from _walk(child.path, f"{name}/", (*parents, identity), report, partial_files)
                continue
            status = child.stat()
        except UnicodeEncodeError:
            report(name, "Its name is not UTF-8, which a key has to be")
        except OSError as error:
            report(name, error.strerror or str(error))
        else:
            if stat.S_ISREG(status.st_mode):
                yield Entry(name, status.st_size, status.st_mtime_ns)
            else:
                report(name, "It is neither a file nor a folder")


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
        for meta in page:
            name = meta["path"][start:]
            last = name.rpartition("/")[2]
            if last in ("", LOCK):
                continue
            time_ns = nanoseconds(meta["last_modified"])
            if last != MARKER:
                yield Entry(name, meta["size"], time_ns, meta["e_tag"] or "")
            elif name != MARKER:
                yield Entry(name.removesuffix(f"/{MARKER}"), -1, time_ns)


def nanoseconds(time: datetime) -> int:
    """A time of an object as that of a file."""
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1000
