"""Many strings in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

__all__ = ["PackedStrings"]


@dataclass(frozen=True, eq=False)
class PackedStrings:
    """Strings packed into one: 8 bytes each beside their own length, where a list of str takes 57.

    Attributes:
        data: their bytes, one after the other, as `os.fsencode` gives them.
        starts: int64 `(count + 1,)`, where each begins, and where the last ends.
    """

    data: bytes
    starts: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Packs `texts`."""
        packed = [os.fsencode(text) for text in texts]
        starts = np.zeros(len(packed) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)), out=starts[1:])
        return cls(b"".join(packed), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.data[self.starts[index] : self.starts[index + 1]])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
