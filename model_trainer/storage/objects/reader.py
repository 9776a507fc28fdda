"""Random access to one version of an object, by ranges."""

from __future__ import annotations

import io
from typing import Any

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["RangeReader"]


class RangeReader(io.RawIOBase):
    """Reads an object by ranges; raises OSError if it changes meanwhile.

    Args:
        bucket: of the object.
        url: of the object.
        meta: size and ETag, as obstore gives them.
    """

    def __init__(self, bucket: Bucket, url: ObjectUrl, meta: Any) -> None:
        self._bucket = bucket
        self._url = url
        self._size = int(meta["size"])
        self._etag = meta["e_tag"]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        import obstore

        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        if stop <= self._position:
            return 0
        with self._bucket.errors(self._url):
            options = {"range": (self._position, stop), "if_match": self._etag}
            data = obstore.get(self._bucket.store, self._url.key, options=options).bytes()
        view[: len(data)] = memoryview(data)
        self._position += len(data)
        return len(data)
