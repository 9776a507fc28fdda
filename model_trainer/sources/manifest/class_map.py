"""Reads the class names of class indices from the metadata that SageMaker Ground Truth writes next to a label."""

from __future__ import annotations

from typing import Any

from model_trainer.errors import DataError
from model_trainer.sources.labels.classes import MAX_CLASSES
from model_trainer.sources.labels.text_labels import as_text, is_number

__all__ = ["add_class_names"]


def add_class_names(metadata: Any, label: Any, names: dict[int, str]) -> None:
    """Adds the class names in the metadata of one label to `names`: `class-map`, or `class-name` of one class index.

    Raises:
        DataError: a number has two names.
    """
    if not isinstance(metadata, dict):
        return
    class_map = metadata.get("class-map")
    if not isinstance(class_map, dict):
        name = metadata.get("class-name")
        if isinstance(label, (list, dict)) or name is None:
            return
        class_map = {as_text(label): name}
    for label_text, name in class_map.items():
        if not is_number(label_text) or label_text.startswith("-") or not isinstance(name, str):
            continue
        number = int(label_text)
        if number >= MAX_CLASSES:
            raise DataError(f"the class index {number} should be at most {MAX_CLASSES - 1}.")
        if names.setdefault(number, name) != name:
            raise DataError(f"the class index {number} has the name {name!r} here and {names[number]!r} before.")
