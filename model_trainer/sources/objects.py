"""Images in an object store: each is read in the version that was listed or, if none was, in the one read first."""

from __future__ import annotations

from typing import final

import numpy as np

from model_trainer.sources.images import Files, Images
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import cached
from model_trainer.storage.objects.listing import MAX_ETAG_BYTES

__all__ = ["Objects", "images_at"]


@final
class Objects(Images):
    """Images that are objects, one each.

    Args:
        paths: URLs of the objects, without `root`.
        root: the beginning of all URLs.
        sizes: int64 `(count,)`, in bytes; None if they are unknown.
        etags: bytes `(count,)`, the ETags; b"" for an unknown one. None: all are unknown. An unknown one is set to the
            ETag of the version that is read first.
    """

    def __init__(
        self, paths: PackedStrings, root: str = "", sizes: np.ndarray | None = None, etags: np.ndarray | None = None
    ) -> None:
        self.paths = paths
        self.root = root
        self.sizes = sizes
        self.etags = np.zeros(len(paths), f"S{MAX_ETAG_BYTES}") if etags is None else etags

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        return f"{self.root}{self.paths[row]}"

    def read(self, row: int) -> bytes:
        etag = self.etags[row].decode()
        content, version = cached.read_version(self.name(row), etag)
        if not etag and len(version) <= MAX_ETAG_BYTES:
            self.etags[row] = version.encode()
        return content

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows), np.int64) if self.sizes is None else self.sizes[rows]

    def takes_requests(self) -> bool:
        return True

    def is_cached(self, row: int) -> bool:
        path = self.name(row)
        return not cached.is_in_store(path) or cached.is_cached(path, self.etags[row].decode())


def images_at(paths: PackedStrings) -> Images:
    """The images at `paths`, some of which may be in object stores."""
    return Objects(paths) if any(map(cached.is_in_store, paths)) else Files(paths)
