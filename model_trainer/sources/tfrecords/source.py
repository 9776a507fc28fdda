"""TFRecord files as a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from model_trainer.errors import DataError, StorageError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import ByteRanges
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source
from model_trainer.sources.tfrecords.features import Features
from model_trainer.sources.tfrecords.index import FileIndex, index_files
from model_trainer.sources.tfrecords.labels import make_labels
from model_trainer.storage import files

__all__ = ["TFRecords", "byte_ranges"]


@final
class TFRecords(Source):
    """Images in TFRecord files of `tf.train.Example`.

    The first time, all files are read and verified; the byte ranges of the images are then cached in the folder
    `$MODEL_TRAINER_CACHE` (`~/.cache/model_trainer`) until a file changes. Images are read by their byte ranges, in
    any order. Memory: 36 bytes for each image with one label.

    The label of a record is in `features.label`: a number, or the name of the class. If any record has several or none,
    the labels of all records are tags. Without that feature the objects in `features.labels` are the tags of their
    image; their boxes are not read.

    Fields:
        path: files, or patterns such as "gs://bucket/train-*"; each file is read once, in the order of their names.
        features: names of the features in the records.
        classes: names of the classes in the order of their numbers; None means `features.text` if records have it, and
            "0" to "n-1" otherwise. If records name their classes, None means the sorted names.
        label_offset: the number of the first class: 1 for the usual records of ImageNet.

    Example:
        >>> import tensorflow as tf
        >>> from tensorflow.train import BytesList, Example, Feature, Int64List
        >>> image = Feature(bytes_list=BytesList(value=[tf.io.read_file("photo.jpg").numpy()]))
        >>> label = Feature(int64_list=Int64List(value=[1]))
        >>> features = tf.train.Features(feature={"image/encoded": image, "image/class/label": label})
        >>> with tf.io.TFRecordWriter("train-0.tfrecord") as writer:
        ...     writer.write(Example(features=features).SerializeToString())
        >>> TFRecords("train-*.tfrecord", classes=("cat", "dog")).read().counts()
        array([0, 1])
    """

    path: PathText | tuple[PathText, ...]
    features: Features = Features()
    classes: tuple[str, ...] | None = None
    label_offset: int = 0

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
        etags=tuple(index.etag for index in indexes),
        crcs=_crcs(indexes),
    )


def _crcs(indexes: Sequence[FileIndex]) -> np.ndarray | None:
    if all(index.crcs is None for index in indexes):
        return None
    return np.concatenate([np.zeros(len(each), np.uint32) if each.crcs is None else each.crcs for each in indexes])


def _matching(pattern: str) -> list[str]:
    try:
        info = files.info(pattern)
        if info is not None and info.is_folder:
            raise DataError(f"{pattern} is a folder; TFRecords needs files, such as {pattern.rstrip('/')}/*.tfrecord*.")
        if info is not None:  # may be a file whose name contains a star
            return [pattern]
        paths = files.matching(pattern)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{pattern} could not be searched for: {error.strerror or error}.") from error
    if not paths:
        raise DataError(f"There is no file {pattern}.")
    return paths
