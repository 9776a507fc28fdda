"""Data sets of tensorflow-datasets as a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field, field_validator

from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Images
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source
from model_trainer.sources.tfds.array_records import ArrayRecordImages, read_array_records
from model_trainer.sources.tfds.builder import RecordRange, choose_features, find_splits, load_builder
from model_trainer.sources.tfrecords.features import Features
from model_trainer.sources.tfrecords.index import FileIndex, Records, index_files
from model_trainer.sources.tfrecords.labels import make_labels
from model_trainer.sources.tfrecords.records import read_records
from model_trainer.sources.tfrecords.source import byte_ranges

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

__all__ = ["Tfds"]


@final
class Tfds(Source):
    """An image data set of tensorflow-datasets.

    Its tfrecord or array_record files are read directly, in the order of the split; images stay encoded. The first
    time, the files of the split are indexed, and the index is cached as by `TFRecords`.

    Fields:
        name: such as "mnist", "mnist:3.0.1" or "my_set/config:1.0.0".
        split: a split, a slice or a sum: "train", "train[10%:]", "train+test".
        data_dir: the folder of prepared data sets; None means the default of tensorflow-datasets.
        image, label: names of the features; for a nested one its path: "objects/label". If there is no "image" or
            "label", the only image or class feature of the data set is used. A list of classes gives tags.
        classes: names of all classes of the data set in another order; None keeps its own order.
        download: download and prepare the data set if it is not prepared.

    Example:
        >>> train_data = Tfds("cifar10", split="train[:90%]")  # reads nothing yet
        >>> val_data = train_data.changed("split", "train[90%:]")
        >>> val_data.to_dict()["split"]
        'train[90%:]'
    """

    name: str = Field(min_length=1)
    split_name: str = Field("train", alias="split")  # `split` is a method of every source
    data_dir: PathText | None = None
    image: str = "image"
    label: str = "label"
    classes: tuple[str, ...] | None = None
    download: bool = False

    @field_validator("name")
    @classmethod
    def _has_no_namespace(cls, name: str) -> str:
        # The namespace in "huggingface:mnist" would be looked up on the internet.
        if ":" in name and not re.search(r":[\d*][\w.*]*$", name):
            raise ConfigError(f"should be a name such as 'mnist', 'mnist:3.0.1' or 'set/config', got {name!r}.")
        return name

    def read(self) -> Examples:
        builder = load_builder(self.name, self.data_dir, download=self.download)
        chosen = choose_features(builder, self.image, self.label)
        ranges = find_splits(builder, self.split_name)
        records = _records_of(builder)
        paths = list(dict.fromkeys(each.path for each in ranges))
        features = Features(image=chosen.image, label=chosen.label, text=None, labels=None, texts=None)
        indexes = index_files(paths, features, records)
        rows = _rows(ranges, paths, indexes)
        labels, classes = make_labels(paths, indexes, classes=chosen.classes or self.classes, tags=chosen.tags)
        if records is read_records:
            images: Images = byte_ranges(paths, indexes)
        else:
            images = _array_record_images(paths, indexes, chosen.image)
        origin = f"{builder.info.full_name} {self.split_name}"
        examples = Examples.of_images(images, labels, classes, origin).take(rows)
        return examples if self.classes is None else examples.with_classes(self.classes)


def _records_of(builder: tfds.core.DatasetBuilder) -> Records:
    file_format = builder.info.file_format
    name = file_format.value if file_format else "tfrecord"
    readers = {"tfrecord": read_records, "array_record": read_array_records}
    if name not in readers:
        raise DataError(
            f"{builder.info.full_name} is stored as {name}; tfrecord and array_record can be read. "
            "Prepare it again: tfds.builder(name, file_format='array_record').download_and_prepare()."
        )
    return readers[name]


def _rows(ranges: Sequence[RecordRange], paths: Sequence[str], indexes: Sequence[FileIndex]) -> np.ndarray:
    """int64: the rows of `ranges` among the records of all `paths`, file after file."""
    lengths = {path: len(index) for path, index in zip(paths, indexes, strict=True)}
    for each in ranges:
        if lengths[each.path] != each.num_records:
            raise DataError(
                f"{each.path} holds {lengths[each.path]} records, but the data set declares {each.num_records}. "
                "Its preparation was interrupted, or a file was replaced; prepare the data set again."
            )
    ends = np.cumsum(list(lengths.values()))
    starts = dict(zip(paths, ends - list(lengths.values()), strict=True))
    return np.concatenate([starts[each.path] + np.arange(each.first, each.first + each.count) for each in ranges])


def _array_record_images(paths: Sequence[str], indexes: Sequence[FileIndex], feature: str) -> ArrayRecordImages:
    lengths = [len(index) for index in indexes]
    return ArrayRecordImages(
        files=tuple(paths),
        file=np.repeat(np.arange(len(paths), dtype=np.int32), lengths),
        record=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        sizes=np.concatenate([index.sizes for index in indexes]),
        feature=feature,
    )
