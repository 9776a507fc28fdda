"""Renders HTML pages from the templates in `templates/`.

A template extends `base.html`, which contains the style with its light and dark colours. A page is a single file that
needs no network and no script. `display/pages.py` escapes all values.
"""

from __future__ import annotations

from typing import Any

from model_trainer.display.pages import Environment, make_environment

__all__ = ["environment", "render_page"]


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
