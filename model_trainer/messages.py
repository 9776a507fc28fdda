"""Messages of wrong values: one clear sentence from pydantic's list of errors, and the nearest right name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from model_trainer.errors import ConfigError, ModelTrainerError

__all__ = ["counted", "nearest", "shown", "to_config_error"]


def counted(count: int, words: str) -> str:
    """`counted(2, "empty file{s}")` is "2 empty files"; also "class{es}" and "cop{ies}"."""
    for mark, one, more in (("{s}", "", "s"), ("{es}", "", "es"), ("{ies}", "y", "ies")):
        words = words.replace(mark, one if count == 1 else more)
    return f"{count:,} {words}"


def shown(text: str) -> str:
    """`text` with what is not printable escaped: control characters, which could rule a terminal, and bytes of file
    names that are no UTF-8."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` when one of `names` is close to `name`, otherwise the empty string."""
    known = {other.lower(): other for other in names}
    close = difflib.get_close_matches(str(name).lower(), known, n=1)
    return f" Did you mean {known[close[0]]!r}?" if close else ""


# What a field should be, in words a person would use, by pydantic's name for the error.
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
    "dict_type": "a table of names and values",
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
    """The error as one of ours, about the field that pydantic names first.

    Args:
        cls: the class that was validated, to tell fields from pydantic's marks for the arms of a union.
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
        # One that names a deeper field knows more than "not one of these kinds".
        if isinstance(cause, ModelTrainerError) and not isinstance(cause, ConfigError):
            return ConfigError(f"is wrong: {cause}", field)
        if isinstance(cause, ConfigError) and (cause.field or len(same_field) == 1 or "live Python" in cause.problem):
            return cause.under(field)
    expected = list(dict.fromkeys(_expectation(detail) for detail in same_field))
    causes = [str(detail.get("ctx", {}).get("error", "")) for detail in same_field]
    hint = next((cause[cause.index(" Did you mean") :] for cause in causes if " Did you mean" in cause), "")
    if isinstance(first.get("input"), str):
        listed = (detail["ctx"]["expected"] for detail in same_field if detail["type"] == "literal_error")
        hint = hint or nearest(first["input"], [word for words in listed for word in re.findall(r"'([^']*)'", words)])
    return ConfigError(f"should be {' or '.join(expected)}, got {_shown(first.get('input'))}.{hint}", field)


def _expectation(detail: ErrorDetails) -> str:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause.problem.removeprefix("should be ").partition(", got ")[0].rstrip(".")
    words = _EXPECTED.get(detail["type"])
    return words.format(**detail.get("ctx", {})) if words else detail["msg"].removeprefix("Value error, ")


def _field_of(loc: tuple[int | str, ...], cls: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """The dotted field that `loc` names, without pydantic's marks for the arms of a union, and the class it is in."""
    parts: list[str] = []
    owner = cls
    for part in loc:
        if isinstance(part, int):
            parts.append(str(part))
            continue
        by_alias = {info.alias or key: info for key, info in owner.model_fields.items()}
        info = by_alias.get(part) or owner.model_fields.get(part)
        if info is None and parts and part != loc[-1]:
            continue
        if info is None and parts and not _looks_like_field(part):
            continue
        parts.append(info.alias or part if info is not None else part)
        if info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            owner = info.annotation
    return ".".join(parts), owner


def _looks_like_field(part: str) -> bool:
    return part.isidentifier() and part not in {"int", "float", "str", "bool", "none", "literal", "tuple", "list"}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = repr(value) if isinstance(value, str) else text
    return text if len(text) <= 80 else text[:77] + "..."
