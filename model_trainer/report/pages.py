"""HTML pages from the templates beside this file.

A template extends `base.html`, which brings the style and the light and dark colours. A page is one file that needs no
network and no script. How values are escaped stands in `display/pages.py`.
"""

from __future__ import annotations

from typing import Any

from model_trainer.display.pages import Environment, make_environment

__all__ = ["environment", "render_page"]


def render_page(template: str, **values: Any) -> str:
    """The page that `template` makes of `values`.

    Args:
        template: a file name in `templates/`, such as "doctor.html".

    Raises:
        UndefinedError: the template uses a value that is not among `values`.
    """
    return environment().get_template(template).render(values)


def environment() -> Environment:
    """The templates of pages."""
    return make_environment("model_trainer.report")
