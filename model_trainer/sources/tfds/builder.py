"""A prepared data set of tensorflow-datasets: its files, the records of a split, and its features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from model_trainer.errors import DataError, MissingExtra
from model_trainer.messages import nearest

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

__all__ = ["ChosenFeatures", "RecordRange", "choose_features", "find_splits", "load_builder"]


@dataclass(frozen=True)
class RecordRange:
    """A range of records of one file (shard).

    Attributes:
        path: of the file.
        first, count: the range of records.
        num_records: the number of records in the whole file, as the data set declares it.
    """

    path: str
    first: int
    count: int
    num_records: int


@dataclass(frozen=True)
class ChosenFeatures:
    """The features that are used.

    Attributes:
        image, label: names of the features.
        classes: names of the classes, if the data set has them.
        tags: whether an image has any number of labels.
    """

    image: str
    label: str
    classes: tuple[str, ...] | None
    tags: bool


def load_builder(name: str, data_dir: str | None, *, download: bool) -> tfds.core.DatasetBuilder:
    """The builder of the prepared data set `name`.

    Args:
        name: such as "mnist", "mnist:3.0.1" or "my_set/config:1.0.0".
        data_dir: the folder of prepared data sets; None means the default of tensorflow-datasets.
        download: download and prepare the data set if it is not prepared.

    Raises:
        MissingExtra: tensorflow-datasets is not installed.
        DataError: the data set is unknown or not prepared.
    """
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        if error.name != "tensorflow_datasets":
            raise
        raise MissingExtra("Tfds sources", "tensorflow-datasets", "tfds") from None
    folder = data_dir or "the default folder of tensorflow-datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        hint = nearest(name.partition(":")[0].partition("/")[0], tfds.list_builders(with_community_datasets=False))
        raise DataError(f"tensorflow-datasets has no data set {name!r}, and there is none in {folder}.{hint}") from None
    except (AssertionError, ImportError, ValueError) as error:  # an unknown version or config, or a missing dependency
        raise DataError(f"Tfds({name!r}) could not be found in {folder}: {error}") from error
    if builder.info.splits:
        return builder
    if not download:
        raise DataError(
            f"Tfds({name!r}) is not prepared in {folder}. Give the right `data_dir`, or download=True to prepare it "
            "now, which may load many gigabytes from the internet."
        )
    builder.download_and_prepare()
    return builder


def find_splits(builder: tfds.core.DatasetBuilder, split: str) -> list[RecordRange]:
    """The ranges of records to read, in order.

    Args:
        builder: the data set.
        split: the name of a split, a slice or a sum, such as "train[:10%]+test".

    Raises:
        DataError: there is no such split, or it is empty.
    """
    splits = builder.info.splits
    try:
        instructions = splits[split].file_instructions
    except ValueError as error:
        reason = f": {error}" if str(error).startswith("Requested slice") else ""
        raise DataError(
            f"{builder.info.full_name} has no split {split!r}{reason}.{nearest(split, splits)} "
            f"It has {', '.join(splits)}; slices are written 'train[:10%]', 'train[100:]', 'train+test'."
        ) from None
    ranges = [RecordRange(each.filename, each.skip, each.take, each.examples_in_shard) for each in instructions]
    ranges = [each for each in ranges if each.count > 0]
    if not ranges:
        raise DataError(f"The split {split!r} of {builder.info.full_name} is empty.")
    return ranges


def choose_features(builder: tfds.core.DatasetBuilder, image: str, label: str) -> ChosenFeatures:
    """Finds the features of image and label.

    If the default names "image" and "label" do not exist, the only feature of that kind is used, and a line in the log
    says so.

    Raises:
        DataError: there is no such feature, or it is of another kind.
    """
    import tensorflow_datasets as tfds

    # Sorted, because the order of a data set's features differs between processes.
    pairs = sorted(_walk(builder.info.features, "", 0), key=lambda each: each[0])
    features = {name: (feature, depth) for name, feature, depth in pairs}
    images = [name for name, (feature, depth) in features.items() if _is_image(feature) and depth == 0]
    labels = [
        name
        for name, (feature, depth) in features.items()
        if isinstance(feature, tfds.features.ClassLabel) and depth <= 1
    ]
    full_name = builder.info.full_name
    image = _choose_name(full_name, "image", image, features, images)
    label = _choose_name(full_name, "label", label, features, labels)
    if image not in images:
        raise DataError(f"{full_name}: {image!r} is not an image; images are {', '.join(images) or 'none'}.")
    feature, depth = features[label]
    if depth > 1:
        raise DataError(f"{full_name}: {label!r} is a list of lists; a label is one value or a list.")
    dtype = np.dtype(features[image][0].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise DataError(f"{full_name}: {image!r} is an image of {dtype}; only uint8 and uint16 can be decoded.")
    names = tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes else None
    return ChosenFeatures(image, label, names, tags=depth == 1)


def _choose_name(full_name: str, usual: str, requested: str, features: dict[str, Any], candidates: list[str]) -> str:
    if requested in features:
        return requested
    if requested == usual and len(candidates) == 1:
        logging.info("%s has no feature %r; %r is used, the only one of its kind.", full_name, requested, candidates[0])
        return candidates[0]
    raise DataError(
        f"{full_name} has no feature {requested!r}.{nearest(requested, features)} Give `{usual}` another name; "
        f"it has {', '.join(features)}."
    )


def _walk(feature: Any, name: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    """`(name, feature, depth)` of each feature; `depth` is the number of lists that contain it.

    The name is the path of the feature in records: "objects/label".
    """
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        for key, inner in feature.items():
            yield from _walk(inner, f"{name}/{key}" if name else key, depth)
    elif isinstance(feature, tfds.features.Sequence) and not isinstance(feature, tfds.features.Dataset):
        yield from _walk(feature.feature, name, depth + 1)
    else:
        yield name, feature, depth


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    # The pixels of a LabeledImage are classes.
    return isinstance(feature, tfds.features.Image) and not isinstance(feature, tfds.features.LabeledImage)
