"""Which images a model is evaluated on: those of its run, or others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_trainer.errors import DataError
from model_trainer.evaluation.record import DataSource
from model_trainer.run.run import load_data
from model_trainer.sources.from_path import source_of_path
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.source import Source
from model_trainer.storage import files

__all__ = ["data_of_run", "source_to_evaluate"]


def data_of_run(model_file: Path, trust: bool) -> tuple[Source, DataSource]:
    """Returns the validation data of the run that trained a model, or its training data if it has none.

    Raises:
        DataError: the model file is not in the output folder of a run.
        ConfigError: the data are named by code that needs `trust`.
    """
    options = model_file.with_name("training_options.json")
    if not files.is_file(options):
        raise DataError(f"There is no training_options.json next to {model_file}; choose the data with --data PATH.")
    train_data, val_data = load_data(options, trust)
    source = val_data or train_data
    return source, DataSource(source.read_shared().origin, "training" if val_data is None else "validation")


def source_to_evaluate(path: str, root: str | None, classes: Sequence[str] | None, *, is_foreign: bool) -> Source:
    """Returns the source at `path`.

    Args:
        root: base folder of the paths in a manifest.
        classes: names of the classes, or with `is_foreign` of the outputs of a model of unknown origin.
    """
    if not is_foreign or classes is None:
        return source_of_path(path, root=root, classes=classes)
    source = source_of_path(path, root=root)
    # `classes` is in the order of the model's outputs, so it must not rename the classes of data that has names.
    names = () if isinstance(source, ImageFolder) else source.read_shared().classes
    are_numbers = names and names == tuple(map(str, range(len(names))))
    return source_of_path(path, root=root, classes=classes) if are_numbers else source
