"""A prepared data set of tensorflow-datasets: its files, which of their records a split means, and its features."""

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

__all__ = ["Chosen", "Part", "choose_features", "find_splits", "load_builder"]


@dataclass(frozen=True)
class Part:
    """A stretch of the records of one file.

    Attributes:
        path: of the file.
        first, count: which of its records.
        num_records: how many the file should have.
    """

    path: str
    first: int
    count: int
    num_records: int


@dataclass(frozen=True)
class Chosen:
    """Which features of the records are used.

    Attributes:
        image, label: their names.
        classes: names of the classes, where the data set names them.
        tags: whether an image has any number of labels.
    """

    image: str
    label: str
    classes: tuple[str, ...] | None
    tags: bool


def load_builder(name: str, data_dir: str | None, *, download: bool) -> tfds.core.DatasetBuilder:
    """The data set `name`, prepared.

    Raises:
        MissingExtra: tensorflow-datasets is not installed.
        DataError: the data set is not known or not prepared.
    """
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        if error.name != "tensorflow_datasets":
            raise
        raise MissingExtra("Tfds sources", "tensorflow-datasets", "tfds") from None
    place = data_dir or "the default folder of tensorflow-datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = nearest(name.partition(":")[0].partition("/")[0], tfds.list_builders(with_community_datasets=False))
        raise DataError(f"tensorflow-datasets has no data set {name!r}, and there is none in {place}.{known}") from None
    except (AssertionError, ImportError, ValueError) as error:  # an unknown version, what its code needs, its config
        raise DataError(f"Tfds({name!r}) could not be found in {place}: {error}") from error
    if builder.info.splits:
        return builder
    if not download:
        raise DataError(
            f"Tfds({name!r}) is not prepared in {place}. Give the right `data_dir`, or download=True to prepare it "
            "now, which may load many gigabytes from the internet."
        )
    builder.download_and_prepare()
    return builder


def find_splits(builder: tfds.core.DatasetBuilder, split: str) -> list[Part]:
    """What to read, in order; `split` may be a slice or a sum, such as "train[:10%]+test".

    Raises:
        DataError: there is no such split, or nothing is in it.
    """
    splits = builder.info.splits
    try:
        instructions = splits[split].file_instructions
    except ValueError as error:
        reason = f": {error}" if str(error).startswith("Requested slice") else ""
        raise DataError(
            f"{builder.info.full_name} has no split {split!r}{reason}.{nearest(split, splits)} "
            f"It has {', '.join(splits)}; parts are written 'train[:10%]', 'train[100:]', 'train+test'."
        ) from None
    parts = [Part(each.filename, each.skip, each.take, each.examples_in_shard) for each in instructions]
    parts = [part for part in parts if part.count > 0]
    if not parts:
        raise DataError(f"The split {split!r} of {builder.info.full_name} holds nothing.")
    return parts


def choose_features(builder: tfds.core.DatasetBuilder, image: str, label: str) -> Chosen:
    """The features that are image and label.

    Where the usual names "image" and "label" are not there, the only feature of the kind is taken, and a line in
    the log says so.

    Raises:
        DataError: there is no such feature, or it is of another kind.
    """
    import tensorflow_datasets as tfds

    # Sorted, because the order of a data set's features differs from process to process.
    walked = sorted(_walk(builder.info.features, "", 0), key=lambda each: each[0])
    found = {name: (feature, depth) for name, feature, depth in walked}
    images = [name for name, (feature, depth) in found.items() if _is_image(feature) and depth == 0]
    labels = [
        name for name, (feature, depth) in found.items() if isinstance(feature, tfds.features.ClassLabel) and depth <= 1
    ]
    what = builder.info.full_name
    image = _chosen(what, "image", image, found, images)
    label = _chosen(what, "label", label, found, labels)
    if image not in images:
        raise DataError(f"{what}: {image!r} is no image; images are {', '.join(images) or 'none'}.")
    feature, depth = found[label]
    if depth > 1:
        raise DataError(f"{what}: {label!r} is a list of lists; a label is one value or a list.")
    dtype = np.dtype(found[image][0].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise DataError(f"{what}: {image!r} is an image of {dtype}; only whole numbers of 8 or 16 bits can be decoded.")
    names = tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes else None
    return Chosen(image, label, names, tags=depth == 1)


def _chosen(what: str, usual: str, wanted: str, found: dict[str, Any], candidates: list[str]) -> str:
    if wanted in found:
        return wanted
    if wanted == usual and len(candidates) == 1:
        logging.info("%s has no feature %r; %r is taken, the only one of its kind.", what, wanted, candidates[0])
        return candidates[0]
    raise DataError(
        f"{what} has no feature {wanted!r}.{nearest(wanted, found)} Give `{usual}` another name; "
        f"it has {', '.join(found)}."
    )


def _walk(feature: Any, name: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    """`(name, feature, depth)` of each feature; `depth` is how many lists it stands in.

    Records call a feature by its path: "objects/label".
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
