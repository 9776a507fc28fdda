"""Error messages about wrong values: one sentence from pydantic's list of errors, and the nearest valid name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from model_trainer.errors import ConfigError, ModelTrainerError

__all__ = ["as_utf8", "counted", "nearest", "shown", "to_config_error"]

MIN_CONTAINED = 3  # letters of a name that is looked for inside others


def counted(count: int, words: str) -> str:
    """`counted(2, "empty file{s}")` is "2 empty files"; also "class{es}" and "cop{ies}"."""
    for mark, one, more in (("{s}", "", "s"), ("{es}", "", "es"), ("{ies}", "y", "ies")):
        words = words.replace(mark, one if count == 1 else more)
    return f"{count:,} {words}"


def as_utf8(value: Any) -> Any:
    """The same JSON value with text that any reader of UTF-8 accepts: other bytes of file names become `\\udce9`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {as_utf8(key): as_utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_utf8(item) for item in value]
    return value


def shown(text: str) -> str:
    """Escapes the unprintable characters of `text`: control sequences for a terminal, and bytes of file names that
    are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` if one of `names` is similar to `name` or alone contains it, otherwise ""."""
    by_lower_case = {valid.lower(): valid for valid in names}
    plain = str(name).lower()
    containing = [valid for valid in by_lower_case if len(plain) >= MIN_CONTAINED and plain in valid]
    matches = difflib.get_close_matches(plain, by_lower_case, n=1) or (containing if len(containing) == 1 else [])
    return f" Did you mean {by_lower_case[matches[0]]!r}?" if matches else ""


# What a field should be, in plain words, by pydantic's type of error.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a dict of names and values",
    "model_type": "a {class_name}(...)",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}


def to_config_error(error: ValidationError, cls: type[BaseModel]) -> ConfigError:
    """Converts pydantic's error to a ConfigError about the first field that it names.

    Args:
        error: from pydantic.
        cls: the class that was validated, to distinguish its fields from pydantic's names for union members.
    """
    details = error.errors(include_url=False)
    first = details[0]
    field, owner = _field_of(first["loc"], cls)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        names = [info.alias or key for key, info in owner.model_fields.items()]
        return ConfigError(f"is not an option of {owner.__name__}.{nearest(name, names)}", field)
    if first["type"] == "missing":
        return ConfigError(f"is missing; {owner.__name__} needs it.", field)
    same_field = [detail for detail in details if _field_of(detail["loc"], cls)[0] == field]
    for cause in (detail.get("ctx", {}).get("error") for detail in same_field):
        # An error about a nested field is more precise than "not one of these kinds".
        if isinstance(cause, ModelTrainerError) and not isinstance(cause, ConfigError):
            return ConfigError(f"is wrong: {cause}", field)
        if isinstance(cause, ConfigError) and (cause.field or len(same_field) == 1 or "live Python" in cause.problem):
            return cause.under(field)
    expected = list(dict.fromkeys(_expectation(detail) for detail in same_field))
    causes = [str(detail.get("ctx", {}).get("error", "")) for detail in same_field]
    hint = next((cause[cause.index(" Did you mean") :] for cause in causes if " Did you mean" in cause), "")
    if isinstance(first.get("input"), str):
        literals = (detail["ctx"]["expected"] for detail in same_field if detail["type"] == "literal_error")
        hint = hint or nearest(first["input"], [word for words in literals for word in re.findall(r"'([^']*)'", words)])
    return ConfigError(f"should be {' or '.join(expected)}, got {_abbreviated(first.get('input'))}.{hint}", field)


def _expectation(detail: ErrorDetails) -> str:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause.problem.removeprefix("should be ").partition(", got ")[0].rstrip(".")
    words = _EXPECTED.get(detail["type"])
    return words.format(**detail.get("ctx", {})) if words else detail["msg"].removeprefix("Value error, ")


def _field_of(loc: tuple[int | str, ...], cls: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """The dotted name of the field at `loc`, without pydantic's names for union members, and the class it is in."""
    names: list[str] = []
    owner = cls
    for key in loc:
        if isinstance(key, int):
            names.append(str(key))
            continue
        by_alias = {info.alias or name: info for name, info in owner.model_fields.items()}
        info = by_alias.get(key) or owner.model_fields.get(key)
        if info is None and names and key != loc[-1]:
            continue
        if info is None and names and not _may_be_field(key):
            continue
        names.append(info.alias or key if info is not None else key)
        if info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            owner = info.annotation
    return ".".join(names), owner


def _may_be_field(key: str) -> bool:
    return key.isidentifier() and key not in {"int", "float", "str", "bool", "none", "literal", "tuple", "list"}


def _abbreviated(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = repr(value) if isinstance(value, str) else text
    return text if len(text) <= 80 else text[:77] + "..."
