"""Help pages: `RUN` for an argument, no type after a flag, and paragraphs as wide as the screen."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

__all__ = ["Command", "Group"]


class Command(TyperCommand):
    """A command, without typer's `{run}` in its usage and `<bool>` after `--resume`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Typer joins the lines of the first paragraph only.
        self.help = "\n\n".join(" ".join(text.splitlines()) for text in (self.help or "").split("\n\n"))

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        options, *arguments = super().collect_usage_pieces(ctx)
        return [options, *(argument.strip("{}").replace("}...", "...").upper() for argument in arguments)]


class Group(TyperGroup):
    """The commands, without typer's `<bool>` after `--version`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))


def _without_types_of_flags(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params
