"""The parts of a data set, such as train and val, found without stopping at what is wrong with them."""

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
from model_trainer.sources.image_folder import ImageFolder, folders_in, hidden_in, images_beside, list_images
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.manifest.columns import ROLES, find_columns
from model_trainer.sources.manifest.rows import read_rows
from model_trainer.sources.manifest.values import is_missing
from model_trainer.sources.recordio import RecordIO
from model_trainer.sources.source import Source
from model_trainer.storage import files

__all__ = ["DataSplit", "find_splits", "run_file_of"]

_TRAINING = ("train", "training")
_OTHERS = ("val", "valid", "validation", "test", "testing", "eval", "dev")
_MAX_SPLITS = 8  # a split column with more values means something else


@dataclass(frozen=True, eq=False)
class DataSplit:
    """One part of a data set.

    Attributes:
        name: "train", "val", ...; "all" where there is only one.
        examples: its images; of a folder without class folders their rows of labels are empty.
        root: the folder that was searched; None for other sources.
        others: files that are no image, by name nor by their first bytes.
        hidden: files and folders whose name begins with a dot.
        loose: images beside the class folders, which training does not see.
        unknown: class folders that are not among the classes that were given.
        is_of_tagger: belongs to a run whose task is `MultiLabel`.
    """

    name: str
    examples: Examples
    root: Path | None = None
    others: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    is_of_tagger: bool = False

    @property
    def trains(self) -> bool:
        """Whether a model would be trained on it."""
        return self.name == "all" or self.name.lower() in _TRAINING

    @property
    def takes_tags(self) -> bool:
        """Whether an image can have several labels."""
        return self.is_of_tagger or (self.examples.label_kind == "tags" and bool(self.examples.classes))

    def relative(self, path: str) -> Path:
        """Where a file of this part belongs in a copy of the data set: "train/cat/1.jpg"."""
        assert self.root is not None
        inner = Path(os.path.relpath(path, self.root))
        return inner if self.name == "all" else self.name / inner


def run_file_of(path: str) -> str | None:
    """The file that holds the run where `path` is a RUN: a `.py`, a `training_options.json`, or a folder with one."""
    if path.endswith(".py") or os.path.basename(path) == "training_options.json":
        return path
    inside = os.path.join(path, "training_options.json")
    return inside if "://" not in inside and files.is_file(inside) else None


def find_splits(
    path_or_run: str | Run, *, root: str | None = None, classes: Sequence[str] | None = None
) -> tuple[DataSplit, ...]:
    """The parts, training first.

    Args:
        path_or_run, root, classes: see `examine`.

    Raises:
        DataError: there is nothing to examine, or a manifest or record file cannot be read at all.
        ConfigError: an option does not fit what is examined.
    """
    if (root is not None or classes is not None) and (
        isinstance(path_or_run, Run) or run_file_of(path_or_run) is not None
    ):
        raise ConfigError("cannot be used with a run, which says it itself.", "--classes" if root is None else "--root")
    if isinstance(path_or_run, Run):
        train, val = path_or_run.train_data, path_or_run.val_data
        parts = [_of_source("train", train), *([] if val is None else [_of_source("val", val)])]
        is_of_tagger = path_or_run.task.label_kind == "tags"
        return _not_empty([replace(part, is_of_tagger=is_of_tagger) for part in parts])
    if (run_file := run_file_of(path_or_run)) is not None:
        if run_file.endswith(".py"):
            raise DataError(f"{run_file} is Python; give the run itself, or on the command line: model-trainer doctor")
        return find_splits(Run.load(run_file))
    source = source_of_path(path_or_run, root=root, classes=classes)
    if isinstance(source, ImageFolder) and files.is_local_folder(path_or_run):
        return _not_empty(_of_folder(Path(path_or_run), source.classes))
    return _not_empty(_of_file(path_or_run, source))


def _not_empty(parts: list[DataSplit]) -> tuple[DataSplit, ...]:
    if not any(len(part.examples) or part.others or part.examples.classes for part in parts):
        raise DataError(f"{', '.join(part.examples.origin for part in parts)} holds no image.")
    return tuple(parts)


def _of_source(name: str, source: Source) -> DataSplit:
    if isinstance(source, ImageFolder) and files.is_local_folder(source.path):
        return _class_folders(name, Path(source.path), source.classes)
    return DataSplit(name, _read(source))


def _read(source: Source) -> Examples:
    if not isinstance(source, ImageFolder | Manifest | RecordIO):
        # It may load TensorFlow, which otherwise fills standard error with notes as it starts.
        import model_trainer.quiet_tensorflow  # noqa: F401
    examples = source.read()
    examples.check_local()
    return examples


def _of_folder(root: Path, classes: tuple[str, ...] | None) -> list[DataSplit]:
    folders = _folders(root)
    named = [name for name in folders if name.lower() in (*_TRAINING, *_OTHERS) and _folders(root / name)]
    # One folder called "train" among others may well be a class.
    if len(named) < 2 and named != folders:
        return [_class_folders("all", root, classes) if folders else _unarranged(root)]
    order = sorted(named, key=lambda name: (*_TRAINING, *_OTHERS).index(name.lower()))
    return [_class_folders(name, root / name, classes) for name in order] or [_unarranged(root)]


def _folders(root: Path) -> list[str]:
    try:
        return sorted(folders_in(root))
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}.") from error


def _class_folders(name: str, root: Path, given: tuple[str, ...] | None) -> DataSplit:
    folders = _folders(root)
    if not folders:
        return _unarranged(root, name)
    unknown = tuple(folder for folder in folders if given is not None and folder not in given)
    classes = tuple(folders) if given is None else (*given, *unknown)
    paths: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    hidden = hidden_in(root)
    for label, folder in enumerate(classes):
        if folder not in folders:
            continue
        images, not_images, not_looked_at = list_images(str(root / folder))
        paths += images
        labels += [label] * len(images)
        others += not_images
        hidden += not_looked_at
    examples = Examples.of_files(paths, np.asarray(labels, np.int32), classes, origin=str(root))
    return DataSplit(name, examples, root, tuple(others), tuple(hidden), tuple(images_beside(root)), unknown)


def _unarranged(root: Path, name: str = "all") -> DataSplit:
    images, others, hidden = list_images(str(root))
    no_labels = LabelRows.of([()] * len(images))
    examples = Examples.of_files(images, no_labels, (), origin=str(root))
    return DataSplit(name, examples, root, tuple(others), tuple(hidden))


def _of_file(path: str, source: Source) -> list[DataSplit]:
    names = _split_names(path) if isinstance(source, Manifest) else []
    if not names:
        return [DataSplit("all", _read(source))]
    return [DataSplit(name, _read(source.model_copy(update={"part": name}))) for name in names]


def _split_names(path: str) -> list[str]:
    """What the split column of a manifest holds, training first; nothing where it has none, or one value only."""
    names: dict[str, None] = {}
    column: str | None = None
    seen: dict[str, None] = {}  # names of columns, in the order of appearance
    for _, row in read_rows(path, "auto").rows:
        if not row.keys() <= seen.keys():
            seen |= dict.fromkeys(row)
            try:
                column = find_columns(seen, dict.fromkeys(ROLES), all_known=False).split
            except DataError:
                return []  # reading it says what is wrong, with the line
        if column is not None and not is_missing(value := row.get(column)):
            names[str(value)] = None
    return (
        sorted(names, key=lambda name: (name.lower() not in _TRAINING, name)) if 1 < len(names) <= _MAX_SPLITS else []
    )
