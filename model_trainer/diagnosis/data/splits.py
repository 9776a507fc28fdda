"""Finds the splits of a data set, such as train and val, and tolerates whatever is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model_trainer.errors import ConfigError, DataError
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.from_path import source_of_path
from model_trainer.sources.image_folder import ImageFolder, folders_in, hidden_in, list_images, unclassified_images
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.recordio import RecordIO
from model_trainer.sources.source import Source
from model_trainer.storage import files

__all__ = ["DataSplit", "find_splits", "run_file_of"]

_TRAINING = ("train", "training")
_NOT_TRAINING = ("val", "valid", "validation", "test", "testing", "eval", "dev")
_MAX_SPLITS = 8  # a split column with more values means something else


@dataclass(frozen=True, eq=False)
class DataSplit:
    """One split of a data set.

    Attributes:
        name: "train", "val", ...; "all" if the data set is not divided.
        examples: its images; in a folder without class folders they have no labels.
        root: the folder that was searched; None for other sources.
        non_images: files that are not images, neither by name nor by their first bytes.
        hidden: files and folders whose name begins with a dot.
        without_class: images outside the class folders, which training does not see.
        unknown_classes: class folders that are not among the expected classes.
        is_multi_label_task: whether it belongs to a run whose task is `MultiLabel`.
    """

    name: str
    examples: Examples
    root: Path | None = None
    non_images: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    without_class: tuple[str, ...] = ()
    unknown_classes: tuple[str, ...] = ()
    is_multi_label_task: bool = False

    @property
    def trains(self) -> bool:
        """Whether a model would be trained on it."""
        return self.name == "all" or self.name.lower() in _TRAINING

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several labels."""
        return self.is_multi_label_task or (self.examples.label_kind == "tags" and bool(self.examples.classes))

    def relative(self, path: str) -> Path:
        """The path of a file relative to the whole data set, such as "train/cat/1.jpg"."""
        assert self.root is not None
        inner = Path(os.path.relpath(path, self.root))
        return inner if self.name == "all" else self.name / inner


def run_file_of(path: str) -> str | None:
    """The file that declares a run: `path` itself, or the `training_options.json` in it.

    Returns:
        None if `path` is neither a `.py`, a `training_options.json`, nor a folder that contains the latter.
    """
    if path.endswith(".py") or os.path.basename(path) == "training_options.json":
        return path
    inside = os.path.join(path, "training_options.json")
    return inside if files.is_file(inside) else None


def find_splits(
    path_or_run: str | Run, *, root: str | None = None, classes: Sequence[str] | None = None
) -> tuple[DataSplit, ...]:
    """Finds the splits of a data set or a run, training first.

    Args:
        path_or_run, root, classes: see `examine`.

    Raises:
        DataError: there is nothing to examine, or a manifest or record file cannot be read at all.
        ConfigError: an option does not apply to `path_or_run`.
    """
    if (root is not None or classes is not None) and (
        isinstance(path_or_run, Run) or run_file_of(path_or_run) is not None
    ):
        raise ConfigError("cannot be used with a run, which declares it.", "--classes" if root is None else "--root")
    if isinstance(path_or_run, Run):
        train, val = path_or_run.train_data, path_or_run.val_data
        splits = [_split_of_source("train", train), *([] if val is None else [_split_of_source("val", val)])]
        is_multi_label_task = path_or_run.task.label_kind == "tags"
        return _not_empty([replace(split, is_multi_label_task=is_multi_label_task) for split in splits])
    if (run_file := run_file_of(path_or_run)) is not None:
        if run_file.endswith(".py"):
            raise DataError(
                f"{run_file} is a Python file; pass its run instead, or use the command line: model-trainer doctor"
            )
        return find_splits(Run.load(run_file))
    source = source_of_path(path_or_run, root=root, classes=classes)
    if isinstance(source, ImageFolder) and files.is_local_folder(path_or_run):
        return _not_empty(_splits_of_folder(Path(path_or_run), source.classes))
    return _not_empty(_splits_of_file(source))


def _not_empty(splits: list[DataSplit]) -> tuple[DataSplit, ...]:
    if not any(len(split.examples) or split.non_images or split.examples.classes for split in splits):
        raise DataError(f"{', '.join(split.examples.origin for split in splits)} contains no image.")
    return tuple(splits)


def _split_of_source(name: str, source: Source) -> DataSplit:
    if isinstance(source, ImageFolder) and files.is_local_folder(source.path):
        return _class_folders(name, Path(source.path), source.classes)
    return DataSplit(name, _read(source))


def _read(source: Source) -> Examples:
    if not isinstance(source, ImageFolder | Manifest | RecordIO):
        # Reading may import TensorFlow, which otherwise logs many notes to standard error.
        import model_trainer.quiet_tensorflow  # noqa: F401
    examples = source.read()
    examples.check_local()
    return examples


def _splits_of_folder(root: Path, classes: tuple[str, ...] | None) -> list[DataSplit]:
    folders = _folders(root)
    split_folders = [name for name in folders if name.lower() in (*_TRAINING, *_NOT_TRAINING) and _folders(root / name)]
    # A single folder called "train" among others may well be a class.
    if len(split_folders) < 2 and split_folders != folders:
        return [_class_folders("all", root, classes) if folders else _without_labels(root)]
    order = sorted(split_folders, key=lambda name: (*_TRAINING, *_NOT_TRAINING).index(name.lower()))
    return [_class_folders(name, root / name, classes) for name in order] or [_without_labels(root)]


def _folders(root: Path) -> list[str]:
    try:
        return sorted(folders_in(root))
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}.") from error


def _class_folders(name: str, root: Path, expected: tuple[str, ...] | None) -> DataSplit:
    folders = _folders(root)
    if not folders:
        return _without_labels(root, name)
    unknown = tuple(folder for folder in folders if expected is not None and folder not in expected)
    classes = tuple(folders) if expected is None else (*expected, *unknown)
    paths: list[str] = []
    labels: list[int] = []
    non_images: list[str] = []
    hidden = hidden_in(root)
    for label, folder in enumerate(classes):
        if folder not in folders:
            continue
        images, non_images_here, hidden_here = list_images(str(root / folder))
        paths += images
        labels += [label] * len(images)
        non_images += non_images_here
        hidden += hidden_here
    examples = Examples.of_files(paths, np.asarray(labels, np.int32), classes, origin=str(root))
    return DataSplit(name, examples, root, tuple(non_images), tuple(hidden), tuple(unclassified_images(root)), unknown)


def _without_labels(root: Path, name: str = "all") -> DataSplit:
    images, non_images, hidden = list_images(str(root))
    no_labels = LabelRows.of([()] * len(images))
    examples = Examples.of_files(images, no_labels, (), origin=str(root))
    return DataSplit(name, examples, root, tuple(non_images), tuple(hidden))


def _splits_of_file(source: Source) -> list[DataSplit]:
    names = _split_names(source) if isinstance(source, Manifest) else []
    if not names:
        return [DataSplit("all", _read(source))]
    return [DataSplit(name, _read(source.model_copy(update={"split_name": name}))) for name in names]


def _split_names(source: Manifest) -> list[str]:
    """The values of a manifest's split column, training first; empty if it has none, or only one value."""
    try:
        names = source.split_names()
    except DataError:
        return []  # when the manifest is read, its error names the problem and the line
    return (
        sorted(names, key=lambda name: (name.lower() not in _TRAINING, name)) if 1 < len(names) <= _MAX_SPLITS else []
    )
