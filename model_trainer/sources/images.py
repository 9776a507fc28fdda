"""Where the bytes of images are: files, or parts of larger files; any of them by its row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np

from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import files
from model_trainer.storage.read import read_image_file, size_of

__all__ = ["ByteRanges", "Files", "Images", "SeveralImages"]

# A network's file system answers slowly, but many questions at once.
NUM_READER_THREADS = 32
FILES_AT_A_TIME = 2000


class Images(ABC):
    """Encoded images by row; rows may be read in any order and from many threads."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What messages call the image: a path, or "train.rec#7"."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: it is gone or cannot be read.
        """

    @abstractmethod
    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        """int64: the size of each of `rows`, -1 where it is not there, 0 of a remote file."""


@final
@dataclass(frozen=True, eq=False)
class Files(Images):
    """A file for each image."""

    paths: PackedStrings

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        return self.paths[row]

    def read(self, row: int) -> bytes:
        return read_image_file(self.paths[row])

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        def sizes(part: np.ndarray) -> np.ndarray:
            return np.fromiter((size_of(self.paths[int(row)]) for row in part), np.int64, len(part))

        parts = np.array_split(rows, max(1, len(rows) // FILES_AT_A_TIME))
        with ThreadPoolExecutor(NUM_READER_THREADS) as threads:
            return np.concatenate(list(threads.map(sizes, parts)))


@final
@dataclass(frozen=True, eq=False)
class ByteRanges(Images):
    """Parts of larger files, read through a memory map.

    Attributes:
        files: paths of the files.
        file: int32 `(count,)`, in which of them each image is.
        starts, sizes: int64 `(count,)`, in bytes.
    """

    files: Sequence[str]
    file: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def name(self, row: int) -> str:
        first = int(np.searchsorted(self.file, self.file[row]))  # rows lie in the order of the files
        return f"{self.files[self.file[row]]}#{row - first}"

    def read(self, row: int) -> bytes:
        return files.read_range(self.files[self.file[row]], int(self.starts[row]), int(self.sizes[row]))

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        return self.sizes[rows]


@final
class SeveralImages(Images):
    """One store after the other, as one."""

    def __init__(self, parts: Sequence[Images]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def name(self, row: int) -> str:
        part, inner = self._find(row)
        return part.name(inner)

    def read(self, row: int) -> bytes:
        part, inner = self._find(row)
        return part.read(inner)

    def num_bytes(self, rows: np.ndarray) -> np.ndarray:
        sizes = np.empty(len(rows), np.int64)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number, part in enumerate(self.parts):
            own = owner == number
            sizes[own] = part.num_bytes(rows[own] - self.starts[number])
        return sizes

    def _find(self, row: int) -> tuple[Images, int]:
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[number], row - int(self.starts[number])
