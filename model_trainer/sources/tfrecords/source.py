"""TFRecord files as a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import final

import numpy as np
from pydantic import field_validator

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import ByteRanges
from model_trainer.sources.source import Source
from model_trainer.sources.tfrecords.features import Features
from model_trainer.sources.tfrecords.index import FileIndex, index_files
from model_trainer.sources.tfrecords.labels import make_labels
from model_trainer.storage import files

__all__ = ["TFRecords", "byte_ranges"]


@final
class TFRecords(Source):
    """The images of TFRecord files: `TFRecords("data/train-*.tfrecord")`.

    The first reading goes through all files and checks them; where the images are is then kept in the folder
    `$MODEL_TRAINER_CACHE` (`~/.cache/model_trainer`), until a file changes. Images are read by their bytes, any
    of them at any time. Memory: 36 bytes for each image with one label stay.

    The labels of a record are those of `features.label`: a number, or the class's name. Where a record has several
    or none, all labels are tags. Without that feature the objects of `features.labels` are the tags of their image;
    their boxes are not read.

    Fields:
        path: files, or patterns such as "gs://bucket/train-*"; read in the order of their names, each once.
        features: what is called how in the records.
        classes: names of the classes in the order of their numbers; None takes `features.text` where records have
            it, and "0" to "n-1" otherwise. Where records name classes, None means the names sorted.
        label_offset: the number of the first class: 1 for the usual records of ImageNet.
    """

    path: str | tuple[str, ...]
    features: Features = Features()
    classes: tuple[str, ...] | None = None
    label_offset: int = 0

    @field_validator("path", mode="before")
    @classmethod
    def _as_text(cls, path: object) -> object:
        if isinstance(path, (list, tuple)):
            return tuple(os.fspath(each) if isinstance(each, os.PathLike) else each for each in path)
        return os.fspath(path) if isinstance(path, os.PathLike) else path

    def read(self) -> Examples:
        patterns = (self.path,) if isinstance(self.path, str) else self.path
        origin = ", ".join(patterns)
        paths = sorted({path for pattern in patterns for path in _matching(pattern)})
        if not paths:
            raise DataError("TFRecords needs at least one file; `path` is empty.")
        indexes = index_files(paths, self.features)
        if not any(len(index) for index in indexes):
            raise DataError(f"{origin} holds no record.")
        labels, classes = make_labels(paths, indexes, classes=self.classes, label_offset=self.label_offset)
        return Examples.of_images(byte_ranges(paths, indexes), labels, classes, origin)


def byte_ranges(paths: Sequence[str], indexes: Sequence[FileIndex]) -> ByteRanges:
    """The images of all records, file after file."""
    lengths = [len(index) for index in indexes]
    return ByteRanges(
        files=tuple(paths),
        file=np.repeat(np.arange(len(paths), dtype=np.int32), lengths),
        starts=np.concatenate([index.starts for index in indexes]),
        sizes=np.concatenate([index.sizes for index in indexes]),
    )


def _matching(pattern: str) -> list[str]:
    try:
        found = files.info(pattern)
        if found is not None and found.is_folder:
            raise DataError(f"{pattern} is a folder; TFRecords needs files, such as {pattern.rstrip('/')}/*.tfrecord*.")
        if found is not None:  # also a file whose name has a star in it
            return [pattern]
        paths = files.matching(pattern)
    except OSError as error:
        raise DataError(f"{pattern} could not be looked for: {error.strerror or error}.") from error
    if not paths:
        raise DataError(f"There is no file {pattern}.")
    return paths
