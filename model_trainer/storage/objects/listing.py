"""Lists the objects below a prefix as columns in local files, which are mapped into memory.

Pages are written to the columns as they arrive, so that a bucket of any size takes little memory. Folders below the
prefix are listed in parallel, because the pages of one listing can only be requested one after another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from absl import logging

from model_trainer.errors import StorageError
from model_trainer.storage.mapped import Mapped
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.locks import LOCK
from model_trainer.storage.objects.own_files import UNFINISHED, OwnFolder, delete, open_own
from model_trainer.storage.objects.urls import MARKER, ObjectUrl
from model_trainer.storage.write_errors import is_full

__all__ = ["MAX_ETAG_BYTES", "ObjectListing", "forget_listings", "list_objects"]

MAX_ETAG_BYTES = 40  # of an ETag of S3: 32 digits, the number of parts, and quotes

_PAGE = 1000  # S3 gives no more at once
_FOLDERS_AT_ONCE = 16
_MAX_FOLDERS = 2000  # with more, one request for each would take longer than listing all of them in a row
_MEMORY_BYTES = 1 << 22  # of a folder's column, before it goes to a temporary file
_COLUMNS: dict[str, Any] = {
    "keys": np.uint8,
    "ends": np.int64,
    "sizes": np.int64,
    "tags": np.dtype(f"S{MAX_ETAG_BYTES}"),
}
_DESCRIPTION = "listed.json"  # with the time and the URL of the listing
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, eq=False)
class ObjectListing:
    """Objects in the order of their keys; those directly below the prefix come first.

    Attributes:
        url: of the prefix.
        keys: the keys in UTF-8, concatenated.
        starts: int64 `(count + 1,)`, where each key starts, and where the last one ends.
        sizes: int64 `(count,)`, in bytes.
        etags: bytes `(count,)`, the ETags; b"" for one that is unknown, or longer than those of S3.
    """

    url: ObjectUrl
    keys: Mapped
    starts: np.ndarray
    sizes: np.ndarray
    etags: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)


def list_objects(bucket: Bucket, url: ObjectUrl, folder: OwnFolder, seconds: float) -> ObjectListing:
    """Lists the objects below a prefix.

    Args:
        bucket, url: of the prefix.
        folder: where listings are cached.
        seconds: how old a cached listing may be; 0 caches none.

    Raises:
        OSError: the store cannot be listed.
    """
    name = hashlib.sha256(f"{bucket.endpoint}\0{url.root}/{url.key}".encode()).hexdigest()[:40]
    cached_folder = folder.path / name
    # Whatever a damaged cached listing contains, a new one replaces it.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        age = time.time() - _description(cached_folder)["time"]
        if 0 <= age < seconds:
            listing = _load(url, cached_folder)
            logging.info("%s/%s is as listed %.0f seconds ago.", url.root, url.key, age)
            return listing
    try:
        with _writable(folder) as parent:
            return _list_into(bucket, url, parent, cached_folder if seconds > 0 and parent == folder.path else None)
    except OSError as error:
        if not is_full(error) or isinstance(error, StorageError):
            raise
        logging.warning("The disk of the cache %s is full; the list of %s is not cached.", folder.path, url.root)
    with tempfile.TemporaryDirectory() as temporary:
        return _list_into(bucket, url, Path(temporary), None)


def _list_into(bucket: Bucket, url: ObjectUrl, parent: Path, cached_folder: Path | None) -> ObjectListing:
    """Lists into a temporary folder in `parent`, which becomes `cached_folder`; None caches nothing."""
    with _temporary_in(parent) as temporary:
        with contextlib.ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(open(Path(temporary) / column, "wb")) for column in _COLUMNS]
            _write_columns(bucket, url, files)
        (Path(temporary) / _DESCRIPTION).write_text(json.dumps({"time": time.time(), "of": f"{url.root}/{url.key}"}))
        listing = _load(url, Path(temporary))  # which stays mapped when the files are deleted
        if cached_folder is not None:
            _replace(Path(temporary), cached_folder)
    return listing


def forget_listings(url: ObjectUrl, folder: OwnFolder) -> None:
    """Deletes the cached listings of a URL, of the folders that contain it, and of the folders below it.

    Args:
        url: what has changed.
        folder: where listings are cached.
    """
    path = f"{url.root}/{url.key}".rstrip("/") + "/"
    for entry in list(folder.entries()):
        listed = ""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            listed = str(_description(Path(entry.path))["of"]).rstrip("/") + "/"
        if listed.startswith(path) or path.startswith(listed):  # also a listing without a readable description
            delete(entry)


def _description(cached_folder: Path) -> dict[str, Any]:
    with open_own(cached_folder / _DESCRIPTION) as file:
        return json.loads(file.read())


def _write_columns(bucket: Bucket, url: ObjectUrl, files: list[IO[bytes]]) -> None:
    import obstore

    with bucket.errors(url):
        top = obstore.list_with_delimiter(bucket.store, url.key or None)
    progress = _Progress(f"{url.root}/{url.key}")
    prefixes = sorted(top["common_prefixes"], key=os.fsencode)
    own = [top["objects"]]
    streams: list[Iterable[Any]] = [own, *(_pages(bucket, url, prefix) for prefix in prefixes)]
    if len(prefixes) > _MAX_FOLDERS:
        streams = [own, _pages(bucket, url, url.key, without=1)]
    total = 0
    with ThreadPoolExecutor(_FOLDERS_AT_ONCE) as threads:
        waiting = [threads.submit(_columns_of, pages, url.key, progress) for pages in streams]
        try:
            while waiting:
                columns = waiting.pop(0).result()
                total = _append(columns, files, total)
        finally:
            progress.stopped = True
            threads.shutdown(cancel_futures=True)


def _pages(bucket: Bucket, url: ObjectUrl, prefix: str, without: int = 0) -> Iterator[Any]:
    """The pages of a prefix; `without=1` leaves out the objects that are directly below it."""
    import obstore

    depth = prefix.count("/") + (2 if prefix else 1)
    with bucket.errors(url):
        for page in obstore.list(bucket.store, prefix or None, chunk_size=_PAGE):
            yield [meta for meta in page if meta["path"].count("/") >= depth] if without else page


def _columns_of(pages: Iterable[Any], key: str, progress: _Progress) -> list[IO[bytes]]:
    """The columns of the objects in `pages`, in temporary files; `ends` are relative to the first key."""
    columns: list[IO[bytes]] = [tempfile.SpooledTemporaryFile(_MEMORY_BYTES) for _ in _COLUMNS]  # noqa: SIM115
    position, last, is_sorted = 0, b"", True
    for page in pages:
        metas = [meta for meta in page if _is_listed(meta["path"], key)]
        if not metas or progress.stopped:
            continue
        keys = [meta["path"].encode() for meta in metas]
        is_sorted = is_sorted and last < keys[0] and all(map(bytes.__lt__, keys, keys[1:]))
        last = keys[-1]
        ends = position + np.cumsum([len(key) for key in keys])
        position = int(ends[-1])
        etags = [etag.encode() if len(etag := meta["e_tag"] or "") <= MAX_ETAG_BYTES else b"" for meta in metas]
        columns[0].write(b"".join(keys))
        columns[1].write(ends.astype(np.int64).tobytes())
        columns[2].write(np.array([meta["size"] for meta in metas], np.int64).tobytes())
        columns[3].write(np.array(etags, _COLUMNS["tags"]).tobytes())
        progress.add(len(metas))
    return columns if is_sorted else _sorted(columns)


def _is_listed(path: str, key: str) -> bool:
    name = path.rpartition("/")[2]
    return name not in (MARKER, LOCK) and path != key


def _sorted(columns: list[IO[bytes]]) -> list[IO[bytes]]:
    """The same columns in the order of the keys: not every store lists in the order of S3."""
    arrays = []
    for column, kind in zip(columns, _COLUMNS.values(), strict=True):
        column.seek(0)
        arrays.append(np.frombuffer(column.read(), kind))
    data, ends, *rest = arrays[0].tobytes(), *arrays[1:]
    starts = np.concatenate([[0], ends[:-1]])
    keys = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    new_ends = np.cumsum((ends - starts)[order])
    contents = [b"".join(keys[row] for row in order), new_ends.tobytes(), *(each[order].tobytes() for each in rest)]
    for column, content in zip(columns, contents, strict=True):
        column.seek(0)
        column.write(content)
    return columns


def _append(columns: list[IO[bytes]], files: list[IO[bytes]], total: int) -> int:
    """Appends columns to those in `files`, whose keys have `total` bytes so far; returns the new total."""
    num_bytes = columns[0].tell()
    for column, file, name in zip(columns, files, _COLUMNS, strict=True):
        column.seek(0)
        if name == "ends":
            while block := column.read(_MEMORY_BYTES):
                file.write((np.frombuffer(block, np.int64) + total).tobytes())
        else:
            shutil.copyfileobj(column, file, _MEMORY_BYTES)
        column.close()
    return total + num_bytes


def _load(url: ObjectUrl, folder: Path) -> ObjectListing:
    arrays = {}
    for name in _COLUMNS:
        with open_own(folder / name) as file:
            empty = os.fstat(file.fileno()).st_size == 0
            arrays[name] = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    ends, sizes, etags = (np.frombuffer(arrays[name], _COLUMNS[name]) for name in ("ends", "sizes", "tags"))
    if not len(ends) == len(sizes) == len(etags) or len(arrays["keys"]) != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{folder} is incomplete")
    return ObjectListing(url, arrays["keys"], np.concatenate([[0], ends]), sizes, etags)


def _temporary_in(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder)


@contextlib.contextmanager
def _writable(folder: OwnFolder) -> Iterator[Path]:
    """The path of `folder` if it can be written, otherwise one that exists inside the `with` block."""
    if not folder.why_not_usable() and os.access(folder.path, os.W_OK):
        yield folder.path
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _replace(new: Path, old: Path) -> None:
    """Renames folder `new` to `old`, replacing it; keeps a folder that another process creates in between."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError), _temporary_in(old.parent) as trash:
            os.rename(old, Path(trash) / "old")
        os.rename(new, old)
        new.mkdir()  # for the caller's TemporaryDirectory, which deletes it


class _Progress:
    """Logs the progress of a long listing; called from many threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.stopped = False
        self._logged_at = time.monotonic()

    def add(self, count: int) -> None:
        self.count += count
        if time.monotonic() - self._logged_at > _SECONDS_BETWEEN_LINES:
            self._logged_at = time.monotonic()
            logging.info("%s: %s objects listed so far.", self.name, f"{self.count:,}")
