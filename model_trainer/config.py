"""The base of declared values: frozen, validated, written to JSON and read back, changed by dotted names.

A `Config` is a value such as `Training(epochs=2)`. A `Choice` is a `Config` that is one of several kinds, such as an
optimizer; its JSON names the kind in `"type"`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from model_trainer.dotted import name_of
from model_trainer.errors import ConfigError
from model_trainer.messages import nearest, to_config_error

__all__ = ["Choice", "Config", "to_plain", "with_present_names"]

T = TypeVar("T")


class Config(BaseModel):
    """A frozen, validated value.

    Positional arguments set the fields in the order of their declaration, those of the class itself before inherited
    ones: `ImageFolder("data/train")`.

    Raises:
        ConfigError: a field is unknown, missing or wrong; the message names it.
    """

    former_fields: ClassVar[dict[str, str]] = {}  # former to present name, so that JSON of earlier versions still loads

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True, hide_input_in_errors=True
    )

    def __init__(self, *args: Any, **data: Any) -> None:
        own = inspect.get_annotations(type(self))
        names = sorted(type(self).model_fields, key=lambda name: name not in own)
        if len(args) > len(names):
            raise ConfigError(f"{type(self).__name__} takes at most {len(names)} values, got {len(args)}.")
        try:
            super().__init__(**dict(zip(names, args, strict=False)), **data)
        except ValidationError as error:
            raise to_config_error(error, type(self)) from None
        except TypeError as error:  # a field given twice, once by position and once by name
            raise ConfigError(f"{type(self).__name__}: {error}.") from None

    @model_validator(mode="before")
    @classmethod
    def _accept_former_fields(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {cls.former_fields.get(name, name): value for name, value in data.items()}

    # Tells pydantic that this __init__ adds nothing to validation, so that nested values keep their field names.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Builds a value from the dict that its `to_dict` returned.

        Raises:
            ConfigError: a field is wrong; the message has its full dotted name.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise to_config_error(error, cls) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the value as JSON types: dicts, lists, strings, numbers, booleans, None."""
        return {
            field.alias or name: to_plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not field.exclude
        }

    def changed(self, name: str, value: Any) -> Self:
        """Returns a copy in which the field `name` (dotted, such as `training.epochs`) is `value`.

        Raises:
            ConfigError: there is no such field, or the value is not valid for it.
        """
        return self.changed_all({name: value})

    def changed_all(self, changes: Mapping[str, Any]) -> Self:
        """Like `changed` for several fields, which are validated together."""
        fields = type(self).model_fields
        by_alias = {field.alias or key: key for key, field in fields.items()}
        data = {key: getattr(self, key) for key in self.model_fields_set}
        nested: dict[str, dict[str, Any]] = {}
        replaced = {name: value for name, value in changes.items() if "." not in name}
        if any(name.partition(".")[0] in replaced for name in changes.keys() - replaced.keys()):
            # A field is replaced and its new value changed: one after the other.
            rest = {name: value for name, value in changes.items() if name not in replaced}
            return self.changed_all(replaced).changed_all(rest)
        for name, value in changes.items():
            head, _, tail = name.partition(".")
            head = self.former_fields.get(head, head)
            if by_alias.get(head, head) not in fields:
                raise ConfigError(f"is not an option of {type(self).__name__}.{nearest(head, by_alias)}", head)
            if tail:
                nested.setdefault(head, {})[tail] = value
            else:
                data[by_alias.get(head, head)] = value
        for head, inner_changes in nested.items():
            key = by_alias.get(head, head)
            data[key] = _changed_inside(data.get(key, getattr(self, key)), head, inner_changes)
        try:
            return type(self).model_validate(data)
        except ValidationError as error:
            raise to_config_error(error, type(self)) from None

    def __str__(self) -> str:
        return repr(self)


class Choice(Config):
    """A value that is one of several kinds, such as an optimizer. A direct subclass is an abstract family of kinds."""

    _kinds: ClassVar[dict[str, type[Choice]]]
    former_names: ClassVar[tuple[str, ...]] = ()  # of a renamed kind, so that JSON of earlier versions still loads

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls._is_family():
            cls._kinds = {}
        elif not inspect.isabstract(cls):  # an abstract subclass groups kinds of the family
            cls._kinds[cls.__name__] = cls

    @classmethod
    def _is_family(cls) -> bool:
        return cls.__base__ is not None and cls.__base__.__name__ == "Choice"  # by name: Choice is not defined yet

    @classmethod
    def kinds(cls) -> dict[str, type[Choice]]:
        """Returns the kinds of this family by name."""
        return dict(cls._kinds)

    @classmethod
    def _kind_named(cls, name: Any) -> type[Choice] | None:
        """The kind with this present or former name; case and underscores do not matter: "power_of_count"."""
        plain = str(name).replace("_", "").lower()
        exact = (kind for key, kind in cls._kinds.items() if key == name)  # first: another may differ only by case
        matches = (kind for key, kind in cls._kinds.items() if name in kind.former_names or key.lower() == plain)
        return next(exact, None) or next(matches, None)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls._is_family():
            return core_schema.no_info_plain_validator_function(cls._choose)
        # As the type of a field, a single kind also accepts the "type" in its JSON.
        return core_schema.no_info_before_validator_function(cls._without_type, handler(source))

    @classmethod
    def _choose(cls, value: Any) -> Choice:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):  # from --set
            value = {"type": value} if cls._kind_named(value) else cls._of_text(value)
            if isinstance(value, cls):
                return value
        names = ", ".join(sorted(cls._kinds))
        if not isinstance(value, Mapping) or "type" not in value:
            raise ConfigError(f"should be one of {names}, got {value!r}.")
        kind = cls._kind_named(value["type"])
        if kind is None:
            raise ConfigError(f"should be one of {names}, got {value['type']!r}.{nearest(value['type'], cls._kinds)}")
        return kind.from_dict(value)

    @classmethod
    def _of_text(cls, text: str) -> Any:
        """Interprets a string that is not the name of a kind; a family may override it."""
        return {"type": text}

    @staticmethod
    def _without_type(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if key != "type"}
        return value

    def to_dict(self) -> dict[str, Any]:
        return {"type": type(self).__name__} | super().to_dict()


def to_plain(value: Any) -> Any:
    """Returns `value` as JSON types; of a Python object only the class name."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"type": "Live", "object": name_of(value)}


def _changed_inside(child: Any, head: str, changes: Mapping[str, Any]) -> Any:
    try:
        if isinstance(child, Config):
            return child.changed_all(changes)
        for rest, value in changes.items() if isinstance(child, tuple) else ():
            index, _, deeper = rest.partition(".")
            if not index.isdigit() or int(index) >= len(child):
                raise ConfigError(f"should be an index from 0 to {len(child) - 1}.", index)
            new = child[int(index)].changed(deeper, value) if deeper else value
            child = (*child[: int(index)], new, *child[int(index) + 1 :])
        if isinstance(child, tuple):
            return child
    except ConfigError as error:
        raise error.under(head) from None
    raise ConfigError(f"has no option {next(iter(changes))!r}; its value is {child!r}.", head)


def with_present_names(options: Any) -> Any:
    """Returns options that an earlier version recorded, as JSON, with the present names of fields and kinds."""
    kinds = {name: kind for kind in _subclasses(Choice) for name in (*kind.former_names, kind.__name__)}
    fields = {
        name: new for each in _subclasses(Config) - _subclasses(Choice) for name, new in each.former_fields.items()
    }

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "type" not in value:
            return {fields.get(name, name): rename(item) for name, item in value.items()}
        kind = kinds.get(str(value["type"]))
        if kind is None:
            return value  # a `Call`: its arguments have the names of the user's own code
        return {kind.former_fields.get(name, name): rename(item) for name, item in value.items()} | {
            "type": kind.__name__
        }

    return rename(options)


def _subclasses(base: type[T]) -> set[type[T]]:
    return {base}.union(*(_subclasses(each) for each in base.__subclasses__()))
