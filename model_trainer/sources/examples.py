"""The table of examples that every source returns."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import counted, nearest
from model_trainer.sources.images import Files, Images
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import (
    LabelKind,
    Labels,
    count_classes,
    kind_of,
    remap_labels,
    rows_of,
    take_labels,
)
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage.read import TENSORFLOW_SCHEMES

__all__ = ["Examples"]


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """One row for each image; columns are NumPy arrays of the same length.

    Attributes:
        images: where the encoded images are.
        rows: int64 `(num_examples,)`, which of `images` each example shows.
        labels: int32 `(num_examples,)`, position of each image's class in `classes`; or `LabelRows`.
        weights: float32 `(num_examples,)`, how much each counts in loss and metrics.
        classes: names of the classes.
        origin: where the examples come from, for messages: "data/train".
        crops: int32 `(num_examples, 4)` top, left, height, width of the part that is the example, in pixels of the
            upright image; height 0 takes the whole image. None: all take the whole image.
        groups: int32 `(num_examples,)`; a split never parts a group. None: each image stands alone.
    """

    images: Images
    rows: np.ndarray
    labels: Labels
    weights: np.ndarray
    classes: tuple[str, ...]
    origin: str
    crops: np.ndarray | None = None
    groups: np.ndarray | None = None

    @classmethod
    def of_files(
        cls,
        paths: Iterable[str],
        labels: Labels,
        classes: tuple[str, ...],
        origin: str,
        *,
        weights: np.ndarray | None = None,
        crops: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        """Examples with a file each."""
        return cls.of_images(Files(PackedStrings.of(paths)), labels, classes, origin, weights, crops, groups)

    @classmethod
    def of_images(
        cls,
        images: Images,
        labels: Labels,
        classes: tuple[str, ...],
        origin: str,
        weights: np.ndarray | None = None,
        crops: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        """Examples that show each of `images` once, in order; without `weights` all count 1."""
        return cls(
            images=images,
            rows=np.arange(len(images), dtype=np.int64),
            labels=labels if isinstance(labels, LabelRows) else np.asarray(labels, np.int32),
            weights=np.ones(len(images), np.float32) if weights is None else np.asarray(weights, np.float32),
            classes=classes,
            origin=origin,
            crops=crops,
            groups=groups,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_kind(self) -> LabelKind:
        """One class each, a probability for each class, or any number of tags."""
        return kind_of(self.labels)

    def name(self, index: int) -> str:
        """What messages call the image of an example: a path, or "train.rec#7"."""
        return self.images.name(int(self.rows[index]))

    def names(self) -> list[str]:
        """The name of each example's image."""
        return [self.name(index) for index in range(len(self))]

    @functools.cached_property
    def num_bytes(self) -> np.ndarray:
        """int64 `(num_examples,)`: the size of each encoded image, -1 where it is not there. Looks at every file."""
        return self.images.num_bytes(self.rows)

    def check_local(self) -> None:
        """Raises DataError where an image lies in an object store."""
        for index in np.flatnonzero(self.num_bytes == 0):  # what a remote file has, and an empty one
            name = self.name(int(index))
            scheme, separator, _ = name.partition("://")
            if separator and scheme not in TENSORFLOW_SCHEMES:
                raise DataError(
                    f"{self.origin}: {name} lies in an object store that is not read yet. Copy the images to a disk, "
                    "and name them there."
                )

    def take(self, indices: np.ndarray) -> Examples:
        """The examples at `indices`, in that order."""
        return replace(
            self,
            rows=self.rows[indices],
            labels=take_labels(self.labels, indices),
            weights=self.weights[indices],
            crops=None if self.crops is None else self.crops[indices],
            groups=None if self.groups is None else self.groups[indices],
        )

    def counts(self) -> np.ndarray:
        """int64 `(num_classes,)`: how many examples have each class; of probabilities the most likely one counts."""
        return count_classes(self.labels, len(self.classes))

    def label_rows(self) -> LabelRows:
        """The labels as rows, whatever their kind."""
        return rows_of(self.labels)

    def with_equal_weights(self) -> Examples:
        """The same examples, each counting 1."""
        return replace(self, weights=np.ones(len(self), np.float32))

    def with_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples with their labels counted in `classes`.

        Raises:
            DataError: an example's class is not among them.
        """
        if classes == self.classes:
            return self
        known = set(classes)
        for name, count in zip(self.classes, self.counts(), strict=True):
            if name not in known and count:
                raise DataError(
                    f"{self.origin} has the class {name!r}, which is not one of {_some(classes)}."
                    f"{nearest(name, classes)} Training and validation need the same classes: give training images "
                    "of it, or leave it out, such as val_data=ImageFolder(...).filter(classes=(...))."
                )
        return self.keep_classes(classes)

    def without_unknown_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples without the tags that are not among `classes`; the log says how many there were.

        Where each image has one class nothing is left out, so that a wrong one shows.
        """
        if self.label_kind != "tags" or classes == self.classes:
            return self
        known = set(classes)
        foreign = [name for name in self.classes if name not in known]
        if not foreign:
            return self
        logging.warning(
            "%s has %d tag%s that training has not seen, such as %r; what is judged leaves them out.",
            self.origin, len(foreign), "s" * (len(foreign) > 1), foreign[0],
        )  # fmt: skip
        return self.keep_classes(tuple(name for name in self.classes if name in known))

    def keep_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples with their labels counted in `classes`; labels of others are dropped.

        No example may be left without a class where each has exactly one.
        """
        known = {name: position for position, name in enumerate(classes)}
        position = np.array([known.get(name, -1) for name in self.classes], dtype=np.int32)
        return replace(self, labels=remap_labels(self.labels, position), classes=classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest over names, sizes in bytes and labels; not over contents, which would read every file."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for start in range(0, len(self), 100_000):  # in parts, so that not all names are held at once
            names = "\0".join(self.images.name(int(row)) for row in self.rows[start : start + 100_000])
            digest.update(names.encode("utf-8", "surrogateescape"))
        labels = self.label_rows()
        columns = [self.num_bytes, labels.starts, labels.classes, labels.values, self.weights]
        for column in columns if self.crops is None else [*columns, self.crops]:
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        # Columns have as many rows as there are images, and a notebook keeps the text beside the HTML.
        number, classes = counted(len(self), "image{s}"), counted(len(self.classes), "class{es}")
        return f"<Examples from {self.origin}: {number} of {classes}>"

    def _repr_html_(self) -> str:
        from model_trainer.sources.examples_html import examples_html

        return examples_html(self)


def _some(names: tuple[str, ...], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
