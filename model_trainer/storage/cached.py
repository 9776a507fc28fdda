"""Reads files that are needed repeatedly, such as images; objects of a store through a cache on the local disk.

Other paths are read without a cache, as `files` does.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from model_trainer.errors import ConfigError
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import listing, versions
from model_trainer.storage.objects.cache import ObjectCache
from model_trainer.storage.objects.checksums import Digest
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.listing import ObjectListing, list_objects
from model_trainer.storage.objects.own_files import (
    OwnFolder,
    folder_of_indexes,
    folder_of_listings,
    folder_of_objects,
)
from model_trainer.storage.objects.urls import SCHEMES, ObjectUrl, parse_url
from model_trainer.storage.read import MAX_FILE_BYTES, read_image_file

__all__ = [
    "CacheUsage",
    "cache",
    "clear",
    "forget_listings",
    "is_cached",
    "is_in_store",
    "is_range_cached",
    "listing_of",
    "read_range_version",
    "read_verified",
    "read_version",
    "temporary_file",
    "usage",
    "version_of",
]


def is_in_store(path: str) -> bool:
    """Whether a path leads to an object store, where each read is a request."""
    return path.partition("://")[0] in SCHEMES


@functools.cache
def _cache(folder: str, max_bytes: int) -> ObjectCache:
    return ObjectCache(folder_of_objects(folder), max_bytes)


def cache() -> ObjectCache:
    """The cache of this process, as it is configured."""
    config = configuration.current()
    return _cache(config.cache_folder, config.cache_bytes)


@dataclass(frozen=True)
class CacheUsage:
    """How much the cache of object stores contains.

    Attributes:
        folder: local folder of the cache.
        count, num_bytes: number and total size of the cached objects and byte ranges of objects.
        max_bytes: maximum of `num_bytes`.
    """

    folder: str
    count: int
    num_bytes: int
    max_bytes: int


def usage() -> CacheUsage:
    """How much the cache of object stores contains now."""
    config = configuration.current()
    return CacheUsage(config.cache_folder, *cache().usage(), config.cache_bytes)


def clear() -> None:
    """Deletes all cached objects and listings, and the indexes of TFRecord files."""
    cache().clear()
    _listings().clear()
    folder_of_indexes(configuration.current().cache_folder).clear()


def forget_listings(path: str) -> None:
    """Deletes the cached listings that a change at or below a URL makes outdated; other paths have none."""
    if is_in_store(path):
        listing.forget_listings(parse_url(path), _listings())


def _listings() -> OwnFolder:
    return folder_of_listings(configuration.current().cache_folder)


def read_version(path: str, etag: str = "") -> tuple[bytes, str]:
    """Reads a file; an object of a store in a given version, from the cache if it is there.

    Args:
        path: of the file.
        etag: the ETag of the object; "" reads the version that the store has now.

    Returns:
        `(content, etag)`; the ETag of a file outside object stores is "".

    Raises:
        ChangedError: the object has another ETag by now, and the requested version is not in the cache.
        StorageError: the store refuses every request, or does not answer.
        OSError: the file is missing, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    if not is_in_store(path):
        return read_image_file(path), ""
    url, bucket = _locate_object(path)
    content = cache().get(_key(url, bucket, etag)) if etag else None
    if content is not None:
        return content, etag
    content, etag = versions.read_version(bucket, url, etag, MAX_FILE_BYTES)
    if etag:
        cache().put(_key(url, bucket, etag), content)
    return content, etag


def is_cached(path: str, etag: str) -> bool:
    """Whether `read_version` would find an object in the cache."""
    return bool(etag) and _key(*_locate_object(path), etag) in cache()


def read_range_version(path: str, start: int, size: int, etag: str = "", crc: int | None = None) -> bytes:
    """Reads `size` bytes of a file from offset `start`, as `read_version`.

    Args:
        path: of the file.
        start, size: in bytes.
        etag: the ETag of the object; "" reads the version that the store has now.
        crc: expected CRC-32 of the bytes, checked for objects only; None checks nothing.

    Raises:
        OSError: as `read_version`, or the file is shorter, or the bytes of an object arrive damaged twice.
    """
    if not is_in_store(path):
        return files.read_range(path, start, size)
    url, bucket = _locate_object(path)
    key = _key(url, bucket, _range_of(etag, start, size))
    content = cache().get(key) if etag else None
    if content is not None and crc in (None, zlib.crc32(content)):
        return content
    for _ in range(2):
        content = versions.read_range_version(bucket, url, start, size, etag)
        if crc in (None, zlib.crc32(content)):
            if etag:
                cache().put(key, content)
            return content
    raise OSError(errno.EIO, "its content does not have its checksum", path)


T = TypeVar("T")


def read_verified(path: str, etag: str, size: int, read: Callable[[Iterator[bytes]], T], block_bytes: int) -> T:
    """Passes the blocks of an object to `read`, in order, and returns its result.

    The content is verified by the ETag. On a mismatch `read` is called a second time with a new download, because two
    transfers are not damaged in the same way.

    Args:
        path: of the object.
        etag, size: its ETag, and its size in bytes.
        read: takes an iterator over all blocks.
        block_bytes: size of each block but the last.

    Raises:
        OSError: as `read_version`.
    """
    url, bucket = _locate_object(path)
    before: Digest | None = None
    for _ in range(2):
        digest = Digest(size, etag)

        def blocks(digest: Digest = digest) -> Iterator[bytes]:
            for start in range(0, size, block_bytes):
                block = versions.read_range_version(bucket, url, start, min(block_bytes, size - start), etag)
                digest.update(block)
                yield block

        result = read(blocks())
        if bucket.checksums.accepts(digest, before, lambda: bucket.is_encrypted(url)):
            return result
        before = digest
    raise OSError(errno.EIO, "its content does not have its checksum", path)


def is_range_cached(path: str, start: int, size: int, etag: str) -> bool:
    """Whether `read_range_version` would find a range in the cache."""
    return bool(etag) and _key(*_locate_object(path), _range_of(etag, start, size)) in cache()


def _range_of(etag: str, start: int, size: int) -> str:
    return f"{etag}#{start}+{size}"


def version_of(path: str) -> tuple[str, int, int]:
    """`(etag, size, time)` of a file: size in bytes, modification time in ns since 1970; outside stores the ETag is "".

    Raises:
        OSError: the file is missing or cannot be accessed.
    """
    if is_in_store(path):
        url, bucket = _locate_object(path)
        return versions.version_of(bucket, url)
    info = files.info(path)
    if info is None:
        raise FileNotFoundError(path)
    return "", info.size, info.changed_ns


@contextlib.contextmanager
def temporary_file(content: bytes) -> Iterator[str]:
    """Yields the path of a local file with `content`, deleted after the `with` block, for libraries that open files."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def listing_of(folder: str) -> ObjectListing:
    """All objects below a folder of an object store, from a cached listing if that is recent.

    Raises:
        OSError: the store cannot be listed.
    """
    url, bucket = _locate(folder)
    return list_objects(bucket, url, _listings(), configuration.current().listing_seconds)


def _locate_object(path: str) -> tuple[ObjectUrl, Bucket]:
    """As `_locate`, but raises OSError, as for a file that cannot be opened, if no object can have that path."""
    try:
        key = parse_url(path).key
    except ConfigError as error:
        raise OSError(errno.EINVAL, str(error).rstrip("."), path) from None
    if not key:
        raise OSError(errno.EISDIR, "it names no object", path)
    return _locate(path)


def _locate(path: str) -> tuple[ObjectUrl, Bucket]:
    from model_trainer.storage.objects.store import ObjectStore

    store = files.storage_of(path)
    assert isinstance(store, ObjectStore)
    return store.locate(path)


def _key(url: ObjectUrl, bucket: Bucket, etag: str) -> str:
    # A bucket of the same name may be in another store.
    return f"{bucket.endpoint}\0{url.root}/{url.key}\0{etag}"
