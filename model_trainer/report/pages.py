"""Renders HTML pages from the templates in `templates/`.

A template extends `base.html`, which contains the style with its light and dark colors. A page is a single file that
needs no network connection, and can be read without running its script. `display/pages.py` escapes all values.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from model_trainer.display.pages import Environment, make_environment

__all__ = ["environment", "render_page", "script_hash"]


def render_page(template: str, **values: Any) -> str:
    """Renders `template` with `values`.

    Args:
        template: a file name in `templates/`, such as "doctor.html".
        values: the variables of the template.

    Raises:
        UndefinedError: the template uses a variable that is not among `values`.
    """
    return environment().get_template(template).render(values)


def environment() -> Environment:
    """The Jinja environment with the templates of pages."""
    return make_environment("model_trainer.report")


def script_hash(template: str) -> str:
    """The hash of a script in `templates/`, with which a page's Content-Security-Policy allows this script only.

    The page contains the script as it is: it is a template without values.
    """
    jinja = environment()
    assert jinja.loader is not None
    source = jinja.loader.get_source(jinja, template)[0]
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
