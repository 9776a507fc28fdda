"""All pages show any value as text, whatever it contains, and a browser runs none of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import TemplateRuntimeError, UndefinedError, nodes

import model_trainer
from model_trainer.report.pages import environment

TEMPLATES = sorted((Path(model_trainer.__file__).parent / "report" / "templates").iterdir())
HOSTILE = {
    "tag": ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    "quotes": ("\"'><img src=x onerror=alert(1)>", "\"'><img src=x onerror=alert(1)>"),
    "entity": ("salt &amp; pepper & more", "salt &amp; pepper & more"),
    "no UTF-8": ("a\udcff.jpg", "a\\udcff.jpg"),
    "terminal": ("\x1b[31mred", "\\x1b[31mred"),
    "line break": ("two\nlines", "two\\nlines"),
    "template": ("{{ 7 * 7 }}{% raw %}", "{{ 7 * 7 }}{% raw %}"),
}


class ParsedPage(HTMLParser):
    """The text, attributes and tags of a page as a browser parses them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(("value", "visible"), HOSTILE.values(), ids=HOSTILE)
def test_a_value_is_shown_as_text(value: str, visible: str) -> None:
    source = '<p title="{{ value }}">{{ value }}</p>'
    parsed = ParsedPage(environment().from_string(source).render(value=value))
    assert (parsed.text, parsed.attributes, parsed.tags) == (visible, [("title", visible)], {"p"})


@pytest.mark.parametrize(("value", "visible"), HOSTILE.values(), ids=HOSTILE)
def test_a_value_passed_through_macros_is_escaped_once(value: str, visible: str) -> None:
    source = '{% from "findings.html" import prose %}{% macro outer(text) %}<i>{{ prose(text) }}</i>{% endmacro %}'
    parsed = ParsedPage(environment().from_string(source + "{{ outer(value) }}").render(value=value))
    assert (parsed.text.strip(), parsed.tags) == (visible, {"i"})


def test_text_in_backticks_is_code_and_escaped() -> None:
    source = '{% from "findings.html" import prose %}{{ prose(value) }}'
    page = environment().from_string(source).render(value="Try `--set a=<b>` & `c`, not ` alone.")
    assert page == "Try <code>--set a=&lt;b&gt;</code> &amp; <code>c</code>, not ` alone."


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'summary' is undefined"):
        environment().from_string("<p>{{ summary }}</p>").render()


def test_a_page_without_a_title_is_an_error() -> None:
    page = environment().from_string('{% extends "base.html" %}{% block main %}{% endblock %}')
    with pytest.raises(TemplateRuntimeError, match="Required block 'title'"):
        page.render()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_disables_escaping(path: Path) -> None:
    tree = environment().parse(path.read_text())
    # `escape` returns markup, in which unprintable characters are no longer escaped.
    unsafe = {"safe", "escape", "e", "forceescape", "xmlattr", "urlize", "tojson"}
    assert not {each.name for each in tree.find_all(nodes.Filter)} & unsafe
    assert not list(tree.find_all(nodes.EvalContextModifier))  # {% autoescape false %}
    assert not re.search(r"=\s*\{\{", path.read_text())  # an unquoted attribute ends at the first space


# The scripts of a page are separate templates without values, and its content security policy allows no others.
SCRIPTS = re.compile(r'<script>{% include "(?:report|watch)\.js" %}</script>')


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_loads_another_file_or_runs_a_script(path: Path) -> None:
    text = SCRIPTS.sub("", path.read_text())
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe|\son\w+=|javascript:", text)


@pytest.mark.parametrize("name", ["report.js", "watch.js"])
def test_a_script_contains_no_value(name: str) -> None:
    path = next(path for path in TEMPLATES if path.name == name)
    assert environment().get_template(name).render() == path.read_text()
    assert not re.search(r"\{\{|\{%|\{#|</|innerHTML|insertAdjacent|document\.write|eval\(", path.read_text())
