"""Renders HTML pages from the templates in `templates/`.

A template extends `base.html`, which contains the style with its light and dark colours. A page is a single file that
needs no network and no script. Every value is made printable and then escaped, so file names, class names and messages
may contain anything. No value is exempt: reusable HTML is a macro of a template.
"""

from __future__ import annotations

import base64
import functools
import os
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from model_trainer.messages import shown

__all__ = ["environment", "render_page"]


def render_page(template: str, **values: Any) -> str:
    """Renders `template` with `values`.

    Args:
        template: a file name in `templates/`, such as "doctor.html".
        values: the variables of the template.

    Raises:
        jinja2.UndefinedError: the template uses a variable that is not among `values`.
    """
    return environment().get_template(template).render(values)


@functools.cache
def environment() -> Environment:
    """The Jinja environment with the templates and their filters.

    `| thousands` formats 1234 as 1,234; `| jpeg_uri` embeds the bytes of a JPEG as a data URI; `| basename` is that of
    `os.path`; `| split_code` splits a string at code in backticks, so that every second piece is code.
    """
    jinja = Environment(
        loader=PackageLoader("model_trainer.report"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    jinja.filters["basename"] = os.path.basename
    jinja.filters["jpeg_uri"] = _jpeg_uri
    jinja.filters["split_code"] = re.compile(r"`([^`]+)`").split
    jinja.filters["thousands"] = "{:,}".format
    return jinja


def _printable(value: Any) -> Any:
    """Escapes unprintable characters of strings. A macro returns HTML, whose values have come through here already."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _jpeg_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
