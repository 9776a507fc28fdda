"""The table of examples that every source returns."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np

from model_trainer.errors import DataError

__all__ = ["Examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """One row for each image; columns are NumPy arrays of the same length.

    Attributes:
        paths: object `(num_examples,)`, the path of each image as str.
        labels: int32 `(num_examples,)`, position of each image's class in `classes`.
        weights: float32 `(num_examples,)`, how much each counts in loss and metrics.
        classes: names of the classes.
        origin: where the examples come from, for messages: "data/train".
    """

    paths: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> Examples:
        """The rows at `indices`, in that order."""
        return replace(self, paths=self.paths[indices], labels=self.labels[indices], weights=self.weights[indices])

    def counts(self) -> np.ndarray:
        """int64 `(num_classes,)`: how many examples each class has."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def with_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples with their labels counted in `classes`.

        Raises:
            DataError: an example's class is not among them.
        """
        if classes == self.classes:
            return self
        missing = [name for name in self.classes if name not in classes]
        if missing:
            raise DataError(
                f"{self.origin} has the class {missing[0]!r}, which is not one of {_some(classes)}. "
                "Training and validation need the same classes."
            )
        position = np.array([classes.index(name) for name in self.classes], dtype=np.int32)
        return replace(self, labels=position[self.labels], classes=classes)

    def fingerprint(self) -> str:
        """Hex digest over paths, sizes in bytes and labels; not over contents, which would read every file."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for path, label in zip(self.paths, self.labels, strict=True):
            try:
                size = os.stat(path).st_size
            except OSError:
                size = -1  # a file that is gone is told of when it is read
            digest.update(f"{path}\0{size}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _some(names: tuple[str, ...], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
