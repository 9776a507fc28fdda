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
from model_trainer.sources.images import Images
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
from model_trainer.sources.objects import images_at
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.sources.same_image import image_ids
from model_trainer.storage.objects.urls import SCHEMES
from model_trainer.storage.read import TENSORFLOW_SCHEMES

__all__ = ["Examples"]


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """A table with one row per example; its columns are NumPy arrays of the same length.

    Attributes:
        images: the encoded images.
        rows: int64 `(num_examples,)`, the row in `images` of each example's image.
        labels: int32 `(num_examples,)`, the index in `classes` of each image's class; or `LabelRows`.
        weights: float32 `(num_examples,)`, the weight of each example in loss and metrics.
        classes: names of the classes.
        origin: where the examples come from, for messages: "data/train".
        crops: int32 `(num_examples, 4)` top, left, height, width of the region that is the example, in pixels of the
            upright image; height 0 means the whole image. None: all are whole images.
        groups: int32 `(num_examples,)`; examples of a group always go to the same split. None: no groups.

    Example:
        >>> from model_trainer.sources import Examples
        >>> labels = np.array([0, 0, 1])
        >>> examples = Examples.of_files(["a.jpg", "b.jpg", "c.jpg"], labels, ("cat", "dog"), "my data")
        >>> len(examples), examples.counts(), examples.take(np.array([2])).names()
        (3, array([2, 1]), ['c.jpg'])
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
        """Makes examples from image files, one per file."""
        return cls.of_images(images_at(PackedStrings.of(paths)), labels, classes, origin, weights, crops, groups)

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
        """Makes examples from `images`, one per image, in order; without `weights` all have the weight 1."""
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
        """Whether labels are single classes, probabilities of all classes, or tags."""
        return kind_of(self.labels)

    def name(self, index: int) -> str:
        """The name of an example's image in messages: a path, or "train.rec#7"."""
        return self.images.name(int(self.rows[index]))

    def names(self) -> list[str]:
        """The name of each example's image."""
        return [self.name(index) for index in range(len(self))]

    @functools.cached_property
    def num_bytes(self) -> np.ndarray:
        """int64 `(num_examples,)`: the size of each encoded image in bytes. Queries every local file.

        -1 if the image is missing, 0 if its size is not known without a request to a store.
        """
        return self.images.num_bytes(self.rows)

    @functools.cached_property
    def image_numbers(self) -> np.ndarray:
        """int64 `(num_examples,)`: equal for examples of the same image, such as its crops; see `image_ids`."""
        return image_ids(self.images, self.rows)

    def check_local(self) -> None:
        """Raises DataError if an image is in an object store that is not supported."""
        for index in np.flatnonzero(self.num_bytes == 0):  # remote files of unknown size, or empty files
            name = self.name(int(index))
            scheme, separator, _ = name.partition("://")
            if separator and scheme not in (*TENSORFLOW_SCHEMES, *SCHEMES):
                raise DataError(
                    f"{self.origin}: {name} is in an object store that is not supported yet. Copy the images to a "
                    "local disk and give their paths there."
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
        """int64 `(num_classes,)`: examples of each class; with probabilities the most likely class counts."""
        return count_classes(self.labels, len(self.classes))

    def label_rows(self) -> LabelRows:
        """The labels as sparse rows, whatever their kind."""
        return rows_of(self.labels)

    def with_equal_weights(self) -> Examples:
        """The same examples, all with the weight 1."""
        return replace(self, weights=np.ones(len(self), np.float32))

    def with_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples with their labels converted to indices in `classes`.

        Raises:
            DataError: the class of an example is not in `classes`.
        """
        if classes == self.classes:
            return self
        names = set(classes)
        for name, count in zip(self.classes, self.counts(), strict=True):
            if name not in names and count:
                raise DataError(
                    f"{self.origin} has the class {name!r}, which is not one of {_some(classes)}."
                    f"{nearest(name, classes)} Training and validation need the same classes: give training images "
                    "of it, or leave it out, such as val_data=ImageFolder(...).filter(classes=(...))."
                )
        return self.keep_classes(classes)

    def without_unknown_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples without the tags that are not in `classes`; a warning gives their number.

        Single labels and probabilities are unchanged, so that an unknown class becomes an error later.
        """
        if self.label_kind != "tags" or classes == self.classes:
            return self
        names = set(classes)
        unseen = [name for name in self.classes if name not in names]
        if not unseen:
            return self
        logging.warning(
            "%s has %d tag%s that training has not seen, such as %r; evaluation ignores them.",
            self.origin, len(unseen), "s" * (len(unseen) > 1), unseen[0],
        )  # fmt: skip
        return self.keep_classes(tuple(name for name in self.classes if name in names))

    def keep_classes(self, classes: tuple[str, ...]) -> Examples:
        """The same examples with their labels converted to indices in `classes`; other labels are dropped.

        A single label must be in `classes`: dropped, it becomes the index -1.
        """
        index_of = {name: index for index, name in enumerate(classes)}
        new_indices = np.array([index_of.get(name, -1) for name in self.classes], dtype=np.int32)
        return replace(self, labels=remap_labels(self.labels, new_indices), classes=classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the examples as hex digits: their names, sizes in bytes, classes, labels, weights and crops.

        The contents are not included, because that would mean reading every file.
        """
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for start in range(0, len(self), 100_000):  # in chunks, so that not all names are held at once
            names = "\0".join(self.images.name(int(row)) for row in self.rows[start : start + 100_000])
            digest.update(names.encode("utf-8", "surrogateescape"))
        labels = self.label_rows()
        columns = [self.num_bytes, labels.starts, labels.classes, labels.values, self.weights]
        for column in columns if self.crops is None else [*columns, self.crops]:
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        # Without the columns, which have a row per image: a notebook stores this text in addition to the HTML.
        number, classes = counted(len(self), "image{s}"), counted(len(self.classes), "class{es}")
        return f"<Examples from {self.origin}: {number} of {classes}>"

    def _repr_html_(self) -> str:
        from model_trainer.sources.examples_html import examples_html

        return examples_html(self)


def _some(names: tuple[str, ...], max_count: int = 10) -> str:
    shown = ", ".join(names[:max_count])
    return shown if len(names) <= max_count else f"{shown} and {len(names) - max_count} more"
