"""Reads a given version of an object, such as the one that was listed; an error says that it has changed."""

from __future__ import annotations

from typing import Any

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.reader import read_object, read_span
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["changed_ns", "read_range_version", "read_version", "version_of"]


def read_version(bucket: Bucket, url: ObjectUrl, etag: str = "", max_bytes: int | None = None) -> tuple[bytes, str]:
    """`(content, etag)` of an object, whose checksum is verified.

    Args:
        bucket, url: of the object.
        etag: its ETag; "" reads the version that the store has now.
        max_bytes: maximum size of the object; None reads one of any size.

    Raises:
        ChangedError: the object has another ETag.
        OSError: it is missing, larger than `max_bytes`, cannot be read or arrives damaged.
    """
    content, meta = read_object(bucket, url, etag, max_bytes)
    return content, meta["e_tag"] or ""


def read_range_version(bucket: Bucket, url: ObjectUrl, start: int, size: int, etag: str = "") -> bytes:
    """`size` bytes of an object from offset `start`; raises as `read_version`, and if the object is shorter."""
    return bytes(read_span(bucket, url, start, start + size, etag)) if size else b""


def version_of(bucket: Bucket, url: ObjectUrl) -> tuple[str, int, int]:
    """`(etag, size, time)` of an object: size in bytes, modification time in nanoseconds since 1970.

    Raises:
        OSError: it is missing or cannot be accessed.
    """
    meta = bucket.head(url)
    return meta["e_tag"] or "", int(meta["size"]), changed_ns(meta)


def changed_ns(meta: Any) -> int:
    """When an object was written, in nanoseconds since 1970, from its `ObjectMeta` of obstore."""
    return int(meta["last_modified"].timestamp() * 1e9)
