"""Stores of encoded images: files, or byte ranges of larger files; each image can be read by its row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np

from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import cached
from model_trainer.storage.read import read_image_file, size_of

__all__ = ["ByteRanges", "ConcatenatedImages", "Files", "Images"]

# A network file system has a high latency, but answers many requests at once.
NUM_READER_THREADS = 32
FILES_PER_CHUNK = 2000


class Images(ABC):
    """Encoded images by row; rows may be read in any order and from many threads."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def name(self, row: int) -> str:
        """The name of the image in messages: a path, or "train.rec#7"."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """Reads the encoded image.

        Raises:
            OSError: it is missing or cannot be read.
        """

    @abstractmethod
    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        """int64 `(len(rows),)`: the size of each image in bytes, -1 if missing, 0 if unknown without a request."""

    def takes_requests(self) -> bool:
        """Whether reading an image takes a request to a store, so that many should be read at once, and ahead."""
        return False

    def is_cached(self, row: int) -> bool:
        """Whether an image of a store is in the cache, so that reading it takes no request now."""
        return False


@final
@dataclass(frozen=True, eq=False)
class Files(Images):
    """Images that are files, one each."""

    paths: PackedStrings

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        return self.paths[row]

    def read(self, row: int) -> bytes:
        return read_image_file(self.paths[row])

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        def sizes(chunk: np.ndarray) -> np.ndarray:
            return np.fromiter((size_of(self.paths[int(row)]) for row in chunk), np.int64, len(chunk))

        chunks = np.array_split(rows, max(1, len(rows) // FILES_PER_CHUNK))
        with ThreadPoolExecutor(NUM_READER_THREADS) as threads:
            return np.concatenate(list(threads.map(sizes, chunks)))


@final
@dataclass(frozen=True, eq=False)
class ByteRanges(Images):
    """Images that are byte ranges of larger files, such as TFRecord files.

    Attributes:
        files: paths of the files.
        file: int32 `(count,)`, the index in `files` of each image's file, in ascending order.
        starts, sizes: int64 `(count,)`, in bytes.
        etags: the ETag of each file in an object store, of the version that the ranges belong to; "" for other files.
        crcs: uint32 `(count,)`, the CRC-32 of each range of a file that has an ETag; None if no file has one.
    """

    files: Sequence[str]
    file: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    etags: Sequence[str] = ()
    crcs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def name(self, row: int) -> str:
        first = int(np.searchsorted(self.file, self.file[row]))  # rows are in the order of the files
        return f"{self.files[self.file[row]]}#{row - first}"

    def read(self, row: int) -> bytes:
        number = self.file[row]
        etag = self.etags[number] if self.etags else ""
        crc = int(self.crcs[row]) if etag and self.crcs is not None else None
        return cached.read_range_version(self.files[number], int(self.starts[row]), int(self.sizes[row]), etag, crc)

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self.sizes[rows]

    def takes_requests(self) -> bool:
        return any(map(cached.is_in_store, self.files))

    def is_cached(self, row: int) -> bool:
        number = self.file[row]
        path, etag = self.files[number], self.etags[number] if self.etags else ""
        return cached.is_range_cached(path, int(self.starts[row]), int(self.sizes[row]), etag)


@final
class ConcatenatedImages(Images):
    """Several stores, concatenated."""

    def __init__(self, stores: Sequence[Images]) -> None:
        self.stores = tuple(stores)
        self.starts = np.cumsum([0, *(len(store) for store in stores)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def name(self, row: int) -> str:
        store, inner_row = self._locate(row)
        return store.name(inner_row)

    def read(self, row: int) -> bytes:
        store, inner_row = self._locate(row)
        return store.read(inner_row)

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        sizes = np.empty(len(rows), np.int64)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number, store in enumerate(self.stores):
            own = owner == number
            sizes[own] = store.num_bytes(rows[own] - self.starts[number])
        return sizes

    def takes_requests(self) -> bool:
        return any(store.takes_requests() for store in self.stores)

    def is_cached(self, row: int) -> bool:
        store, inner_row = self._locate(row)
        return not store.takes_requests() or store.is_cached(inner_row)

    def _locate(self, row: int) -> tuple[Images, int]:
        """The store of a row, and the row in that store."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.stores[number], row - int(self.starts[number])
