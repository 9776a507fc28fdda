"""One version of an object: what is read is what was listed, or an error says that it has changed."""

from __future__ import annotations

import errno
from typing import Any

from model_trainer.storage.objects.checksums import is_intact
from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["read_range_version", "read_version", "version_of"]


def read_version(bucket: Bucket, url: ObjectUrl, tag: str = "") -> tuple[bytes, str]:
    """`(content, tag)` of an object, whose checksum is verified.

    Args:
        bucket, url: of the object.
        tag: its ETag; "" reads the version that the store has now.

    Raises:
        ChangedError: the object has another ETag.
        OSError: it is missing, cannot be read or arrives damaged.
    """
    import obstore

    name = f"{url.root}/{url.key}"
    for attempt in (1, 2):
        with bucket.errors(url):
            result = obstore.get(bucket.store, url.key, options=_options(tag))
            content = bytes(result.bytes())
        found = result.meta["e_tag"] or ""
        if is_intact(content, result.meta["size"], found, url.root, again=attempt == 2):
            return content, found
    raise OSError(errno.EIO, "its content does not have its checksum, twice", name)


def read_range_version(bucket: Bucket, url: ObjectUrl, start: int, size: int, tag: str = "") -> bytes:
    """`size` bytes of an object from offset `start`; raises as `read_version`, and if the object is shorter."""
    import obstore

    if size == 0:
        return b""
    with bucket.errors(url):
        options: Any = {**_options(tag), "range": (start, start + size)}
        result = obstore.get(bucket.store, url.key, options=options)
        content = bytes(result.bytes())
    if len(content) != size:
        raise OSError(errno.EIO, f"it ends before byte {start + size}", f"{url.root}/{url.key}")
    return content


def version_of(bucket: Bucket, url: ObjectUrl) -> tuple[str, int, int]:
    """`(tag, bytes, nanoseconds)` of an object: its ETag, size and time.

    Raises:
        OSError: it is missing or cannot be accessed.
    """
    import obstore

    with bucket.errors(url):
        meta = obstore.head(bucket.store, url.key)
    return meta["e_tag"] or "", int(meta["size"]), int(meta["last_modified"].timestamp() * 1e9)


def _options(tag: str) -> Any:
    return {"if_match": tag} if tag else {}
