"""Class weights by class name, and checks of the classes of a data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model_trainer.errors import ConfigError, DataError
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples

__all__ = ["by_name", "check_at_least_two_classes", "check_class_names"]


def by_name(weights: Mapping[str, float], classes: tuple[str, ...]) -> np.ndarray:
    """Returns float32 `(num_classes,)`: the weight of each class, 1 for classes without one."""
    return np.array([weights.get(name, 1.0) for name in classes], np.float32)


def check_class_names(weights: object, examples: Examples, field: str) -> None:
    """Raises ConfigError if `weights` names a class that the data does not have."""
    for name in weights if isinstance(weights, Mapping) else ():
        if name not in examples.classes:
            raise ConfigError(
                f"names a class that the data does not have.{nearest(name, examples.classes)}", f"{field}.{name}"
            )


def check_at_least_two_classes(examples: Examples) -> None:
    """Raises DataError if the data has a single class."""
    if len(examples.classes) < 2:
        raise DataError(
            f"{examples.origin} has one class, {examples.classes[0]!r}; classification needs at least two. "
            "Add a folder for another class."
        )
