"""The settings of a run by dotted names, such as "training.epochs", and which of them differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model_trainer.config import Choice, Config, to_plain
from model_trainer.user_code import Call, Live

__all__ = ["changed_settings", "default_settings", "flatten"]


def flatten(value: Any, name: str = "", *, whole_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Yields every plain value in JSON with its dotted name; empty lists and dicts are values too.

    Args:
        value: JSON types.
        name: of `value` itself.
        whole_lists: whether a list of plain values, such as a size, is one value.

    Example:
        >>> dict(flatten({"training": {"epochs": 2}, "augment": [{"type": "RandomFlip"}], "callbacks": []}))
        {'training.epochs': 2, 'augment.0.type': 'RandomFlip', 'callbacks': []}
    """
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f"{name}.{key}".lstrip("."), whole_lists=whole_lists)
    elif isinstance(value, list) and value and not (whole_lists and _is_plain(value)):
        for index, item in enumerate(value):
            yield from flatten(item, f"{name}.{index}", whole_lists=whole_lists)
    else:
        yield name, value


def _is_plain(values: list[Any]) -> bool:
    return not any(isinstance(item, (Mapping, list)) for item in values)


def default_settings(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the default of each setting of a declared value that has one, as JSON, with its dotted name."""
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from default_settings(item, f"{name}.{index}")
    if not isinstance(value, Config):
        return
    for key, info in type(value).model_fields.items():
        inner, item = f"{name}.{info.alias or key}".lstrip("."), getattr(value, key)
        yield from default_settings(item, inner)
        if not info.is_required() and not isinstance(item, Config):
            yield from flatten(to_plain(info.get_default(call_default_factory=True)), inner)


def changed_settings(value: Config) -> dict[str, Any]:
    """Returns the settings that differ from their defaults, and those without a default, as JSON by dotted name.

    For a choice, such as an optimizer, these are its kind and the fields that differ from the defaults of that kind.

    Example:
        >>> changed_settings(Training(epochs=5, optimizer=SGD(momentum=0.8)))
        {'epochs': 5, 'optimizer.type': 'SGD', 'optimizer.momentum': 0.8}
    """
    return dict(_changed(value, ""))


def _changed(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple) and any(isinstance(item, Config) for item in value):
        for index, item in enumerate(value):
            yield from _kind_and_changed(item, f"{name}.{index}")
        return
    if not isinstance(value, Config) or isinstance(value, (Call, Live)):
        yield from flatten(to_plain(value), name, whole_lists=True)
        return
    for key, info in type(value).model_fields.items():
        inner, item = f"{name}.{info.alias or key}".lstrip("."), getattr(value, key)
        default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        if info.is_required() or item != default:
            yield from _changed(item, inner) if type(item) is type(default) else _kind_and_changed(item, inner)


def _kind_and_changed(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Choice):
        yield f"{name}.type", type(value).__name__
    yield from _changed(value, name)
