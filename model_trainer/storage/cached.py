"""Reads data that is read again and again, such as images: objects of a store through the cache on the local disk.

Other paths are read as by `files`.
"""

from __future__ import annotations

import functools
from pathlib import Path

from model_trainer.storage import configuration, files
from model_trainer.storage.objects import versions
from model_trainer.storage.objects.cache import ObjectCache
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.listing import ObjectListing, list_objects
from model_trainer.storage.objects.urls import SCHEMES, ObjectUrl
from model_trainer.storage.read import read_image_file

__all__ = ["cache", "is_in_store", "listing_of", "read_range_version", "read_version", "version_of"]


def is_in_store(path: str) -> bool:
    """Whether a path leads to an object store, where each read is a request."""
    return path.partition("://")[0] in SCHEMES


@functools.cache
def _cache(folder: str, max_bytes: int) -> ObjectCache:
    return ObjectCache(Path(folder) / "objects", max_bytes)


def cache() -> ObjectCache:
    """The cache of this process, as it is configured."""
    config = configuration.current()
    return _cache(config.cache_folder, config.cache_bytes)


def read_version(path: str, tag: str = "") -> tuple[bytes, str]:
    """Reads a file; of an object store a certain version of the object, from the cache if it is there.

    Args:
        path: of the file.
        tag: the ETag of the object; "" reads the version that the store has now.

    Returns:
        `(content, tag)`; of other files the tag is "".

    Raises:
        ChangedError: the object has another ETag by now, and the one that was asked for is not in the cache.
        StorageError: the store refuses every request, or does not answer.
        OSError: the file is missing or cannot be read.
    """
    if not is_in_store(path):
        return read_image_file(path), ""
    url, bucket = _locate(path)
    content = cache().get(_key(url, bucket, tag)) if tag else None
    if content is not None:
        return content, tag
    content, tag = versions.read_version(bucket, url, tag)
    if tag:
        cache().put(_key(url, bucket, tag), content)
    return content, tag


def read_range_version(path: str, start: int, size: int, tag: str = "") -> bytes:
    """Reads `size` bytes of a file from offset `start`, as `read_version`; raises OSError if the file is shorter."""
    if not is_in_store(path):
        return files.read_range(path, start, size)
    url, bucket = _locate(path)
    key = _key(url, bucket, f"{tag}#{start}+{size}")
    content = cache().get(key) if tag else None
    if content is None:
        content = versions.read_range_version(bucket, url, start, size, tag)
        if tag:
            cache().put(key, content)
    return content


def version_of(path: str) -> tuple[str, int, int]:
    """`(tag, bytes, nanoseconds)`: the ETag of an object, its size and time; of another file the tag is "".

    Raises:
        OSError: the file is missing or cannot be accessed.
    """
    if is_in_store(path):
        url, bucket = _locate(path)
        return versions.version_of(bucket, url)
    info = files.info(path)
    if info is None:
        raise FileNotFoundError(path)
    return "", info.size, info.changed_ns


def listing_of(folder: str) -> ObjectListing:
    """All objects below a folder of an object store, from a kept listing if that is recent.

    Raises:
        OSError: the store cannot be listed.
    """
    url, bucket = _locate(folder)
    config = configuration.current()
    return list_objects(bucket, url, Path(config.cache_folder) / "listings", config.listing_seconds)


def _locate(path: str) -> tuple[ObjectUrl, Bucket]:
    from model_trainer.storage.objects.store import ObjectStore

    store = files.storage_of(path)
    assert isinstance(store, ObjectStore)
    return store.locate(path)


def _key(url: ObjectUrl, bucket: Bucket, tag: str) -> str:
    # A bucket of the same name may be in another store.
    return f"{bucket.endpoint}\0{url.root}/{url.key}\0{tag}"
