"""Renders HTML from Jinja2 templates.

Unprintable characters of every value are replaced and the rest is HTML-escaped, so file names, class names and messages
may contain anything. No value is exempt: reusable HTML is a macro of a template.
"""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from model_trainer.messages import shown

__all__ = ["Environment", "make_environment", "render_fragment", "render_table"]

_NUMBER = re.compile(r"-?[\d,.]+|nan|-?inf|")


def render_fragment(template: str, **values: Any) -> str:
    """Renders `template` to HTML for the output of a notebook cell.

    Args:
        template: a file name in `display/templates/`, such as "result.html".
        values: the variables of the template.

    Raises:
        jinja2.UndefinedError: the template uses a variable that is not among `values`.
    """
    return make_environment("model_trainer.display").get_template(template).render(values)


def render_table(
    title: str, facts: Mapping[str, str], columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> str:
    """Renders names with their values, and a table below them; columns of numbers are right-aligned."""
    numbers = [column for column in range(len(columns)) if all(_NUMBER.fullmatch(row[column]) for row in rows)]
    return render_fragment(
        "tables.html", title=title, facts=list(facts.items()), columns=columns, rows=rows, numbers=numbers
    )


@functools.cache
def make_environment(package: str) -> Environment:
    """The Jinja environment of the templates in `templates/` of `package`, with their filters.

    `| thousands` formats 1234 as 1,234; `| jpeg_uri` embeds the bytes of a JPEG as a data URI; `| basename` is that of
    `os.path`; `| split_code` splits a string at code in backticks, so that every second item is code.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters["basename"] = os.path.basename
    environment.filters["jpeg_uri"] = _jpeg_uri
    environment.filters["split_code"] = re.compile(r"`([^`]+)`").split
    environment.filters["thousands"] = "{:,}".format
    return environment


def _printable(value: Any) -> Any:
    """Escapes unprintable characters of strings, except in the HTML of a macro, whose values are escaped already."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _jpeg_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
