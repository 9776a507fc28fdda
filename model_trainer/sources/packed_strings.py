"""A list of strings that takes little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from model_trainer.storage.mapped import Mapped

__all__ = ["PackedStrings"]


@dataclass(frozen=True, eq=False)
class PackedStrings:
    """Strings packed into one buffer: 8 bytes each in addition to the text, where a list of `str` takes 57.

    Attributes:
        data: the concatenated strings, encoded by `os.fsencode`; bytes, or a file that is mapped into memory.
        starts: int64 `(count + 1,)`, where each string starts, and where the last one ends.
    """

    data: Mapped
    starts: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> Self:
        """Packs `strings`."""
        encoded = [os.fsencode(string) for string in strings]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=starts[1:])
        return cls(b"".join(encoded), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """A string as it is encoded in `data`."""
        return self.data[self.starts[index] : self.starts[index + 1]]

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
