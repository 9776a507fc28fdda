"""The HTML representation of a run: its options in groups, with those that differ from their defaults first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from model_trainer.config import Choice, Config
from model_trainer.display.pages import render_fragment
from model_trainer.dotted import name_of
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["GROUPS", "Option", "option_groups", "run_html", "value_text"]

GROUPS = {
    "Data": ("train_data", "val_data", "augment"),
    "Network": ("spec", "weights", "network"),
    "Task": ("task",),
    "Training": ("training", "hardware", "callbacks", "observers"),
    "Output": ("name", "output_dir"),
}
LARGE_CHOICES = ("network", "task")


@dataclass(frozen=True)
class Option:
    """One option of the run.

    Attributes:
        name: dotted, such as "training.epochs".
        value: the formatted value, in lines.
        default: the formatted default; None if there is none.
        is_changed: whether the value differs from the default.
    """

    name: str
    value: list[str]
    default: str | None
    is_changed: bool


def run_html(run: Run) -> str:
    """Renders each option with its value and, if changed, its default; unchanged options are collapsed."""
    return render_fragment("run.html", name=run.name, groups=option_groups(run))


def option_groups(run: Run) -> list[dict[str, Any]]:
    """The options of a run in groups: `{"name": str, "changed": list[Option], "unchanged": list[Option]}`."""
    groups = []
    for title, fields in GROUPS.items():
        options = [option for field in fields for option in _options(run, field, "")]
        groups.append(
            {
                "name": title,
                "changed": [option for option in options if option.is_changed],
                "unchanged": [option for option in options if not option.is_changed],
            }
        )
    return groups


def _options(parent: Config, field: str, prefix: str) -> Iterator[Option]:
    info, value = type(parent).model_fields[field], getattr(parent, field)
    name = f"{prefix}{info.alias or field}"
    default = _default_of(info)
    # A config of a fixed class, such as `Training`, is shown by its fields; a choice as one value, `Adam(beta_1=0.8)`,
    # except for large ones.
    if isinstance(value, Config) and (field in LARGE_CHOICES or not isinstance(value, (Choice, Call, Live))):
        if field in LARGE_CHOICES:
            kind, default_kind = type(value).__name__, type(default).__name__
            yield Option(name, [kind], default_kind, is_changed=kind != default_kind)
        for inner in type(value).model_fields:
            yield from _options(value, inner, f"{name}.")
        return
    has_default = default is not PydanticUndefined
    lines = [value_text(each) for each in value] if isinstance(value, tuple) and _has_configs(value) else []
    yield Option(
        name=name,
        value=lines or [value_text(value)],
        default=value_text(default) if has_default else None,
        is_changed=not has_default or value != default,
    )


def value_text(value: Any) -> str:
    """Formats a value as Python code without arguments at their defaults, such as `Adam(beta_1=0.8)`."""
    if isinstance(value, Call):
        return f"Call({', '.join([repr(value.path), *_arguments(value.arguments)])})"
    if isinstance(value, Live):
        return name_of(value.value)
    if isinstance(value, Config):
        fields = type(value).model_fields
        changed = {name: getattr(value, name) for name in fields if getattr(value, name) != _default_of(fields[name])}
        return f"{type(value).__name__}({', '.join(_arguments(changed))})"
    if isinstance(value, tuple):
        inner = ", ".join(map(value_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def _arguments(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value_text(value)}" for name, value in values.items()]


def _default_of(info: FieldInfo) -> Any:
    return info.get_default(call_default_factory=True, validated_data={})


def _has_configs(values: tuple[Any, ...]) -> bool:
    return any(isinstance(each, Config) for each in values)
