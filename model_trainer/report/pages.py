"""HTML pages from the templates beside this file.

A template extends `base.html`, which brings the style and the light and dark colours. A page is one file that needs no
network and no script. Every value that a template writes is made printable and then escaped, so names of files and
classes, and messages, can hold anything. No value is exempt: parts of a page that are HTML are macros of a template.
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
    """The page that `template` makes of `values`.

    Args:
        template: a file name in `templates/`, such as "doctor.html".

    Raises:
        jinja2.UndefinedError: the template uses a value that is not among `values`.
    """
    return environment().get_template(template).render(values)


@functools.cache
def environment() -> Environment:
    """The templates with their filters.

    `| thousands` writes 1234 as 1,234; `| jpeg_uri` puts the bytes of a JPEG into the page; `| basename` is that of
    `os.path`; `| split_code` divides a text at what stands between backticks, which is every second piece.
    """
    made = Environment(
        loader=PackageLoader("model_trainer.report"),
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
