"""HTML from Jinja2 templates.

Every value that a template writes is made printable and then escaped, so names of files and classes, and messages, can
hold anything. No value is exempt: pieces that are HTML are macros of a template.
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
    """The HTML that `template` makes of `values`, for the output of a notebook's cell.

    Args:
        template: a file name in `display/templates/`, such as "result.html".

    Raises:
        UndefinedError: the template uses a value that is not among `values`.
    """
    return make_environment("model_trainer.display").get_template(template).render(values)


def render_table(
    title: str, facts: Mapping[str, str], columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> str:
    """Names with their values, and below them a table; a column of numbers is aligned at its right."""
    numbers = [place for place in range(len(columns)) if all(_NUMBER.fullmatch(row[place]) for row in rows)]
    return render_fragment(
        "tables.html", title=title, facts=list(facts.items()), columns=columns, rows=rows, numbers=numbers
    )


@functools.cache
def make_environment(package: str) -> Environment:
    """The templates in `templates/` of `package`, with their filters.

    `| thousands` writes 1234 as 1,234; `| jpeg_uri` puts the bytes of a JPEG into the page; `| basename` is that of
    `os.path`; `| split_code` divides a text at what stands between backticks, which is every second piece.
    """
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.filters["basename"] = os.path.basename
    made.filters["jpeg_uri"] = _jpeg_uri
    made.filters["split_code"] = re.compile(r"`([^`]+)`").split
    made.filters["thousands"] = "{:,}".format
    return made


def _printable(value: Any) -> Any:
    """Text as `shown` has it; but what a macro returns is HTML with line breaks, and its values came through here."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _jpeg_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
