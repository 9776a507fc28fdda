"""The documentation site contains all pages, has no broken links, and loads nothing from other servers."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from markdown.extensions.toc import slugify

import model_trainer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]\((?!https?://)([^)\s]+)\)")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags may name Python objects, without importing these."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_in(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["nav"]
    pages = [str(file.relative_to(DOCS)) for file in DOCS.rglob("*") if file.suffix in {".md", ".ipynb"}]
    assert sorted(pages_in(nav)) == sorted(pages)


def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?```$", "", page.read_text())
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        headings = re.findall(r"(?m)^#+ (.+)$", target.read_text()) if anchor else []
        assert not anchor or anchor in {slugify(heading, "-") for heading in headings}, link


def test_every_decision_is_listed_in_the_index() -> None:
    index = (DOCS / "decisions" / "index.md").read_text()
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == sorted(file.name for file in DOCS.glob("decisions/0*.md"))


def test_the_contributing_page_lists_the_layers_in_order() -> None:
    (code,) = re.findall(r"(?ms)^LAYERS = (\[.*?\])", (ROOT / "tests" / "test_layers.py").read_text())
    layers = ast.literal_eval(code)
    package = Path(model_trainer.__file__).parent
    built = [name for name in layers if (package / name).is_dir() or (package / f"{name}.py").is_file()]
    (listed,) = re.findall(r"from the lowest: ([^.]+)\.", (DOCS / "contributing.md").read_text())
    assert re.findall(r"`(\w+)`", listed) == built[built.index("display") :]


def test_every_public_name_is_in_the_api_reference() -> None:
    text = "".join(file.read_text() for file in DOCS.glob("api/*.md"))
    documented = re.findall(r"(?m)^::: model_trainer\.(\w+)$", text)
    assert sorted(documented) == sorted(set(model_trainer.__all__) - {"__version__"})


@pytest.mark.parametrize(
    ("repo_url", "expected"),
    [
        ("https://example.org/us/trainer/", "See [the test](https://example.org/us/trainer/blob/main/tests/a.py)."),
        (None, "See `the test`."),
    ],
)
def test_a_link_to_a_file_outside_the_site_leads_to_the_repository_or_is_code(
    repo_url: str | None, expected: str
) -> None:
    links = runpy.run_path(str(DOCS / "site" / "links.py"))
    page = SimpleNamespace(file=SimpleNamespace(src_uri="decisions/0001.md"))
    markdown = links["on_page_markdown"]("See [the test](../../tests/a.py).", page, SimpleNamespace(repo_url=repo_url))
    assert markdown == expected


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}


@pytest.mark.long
def test_the_site_loads_nothing_from_other_servers(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^>]*>", page.read_text())
        assert not re.findall(r"<link\b[^>]*\bhref=\"?(?:https?:)?//[^>]*stylesheet[^>]*>", page.read_text())


def test_the_api_reference_has_fields_with_types_and_defaults(site: Path) -> None:
    text = re.sub(r"<[^>]+>|\s+", "", (site / "api" / "run" / "index.html").read_text())
    assert "epochs:int=2" in text
    assert "Passesoverthetrainingimages.Atleast1." in text


def test_links_to_files_outside_the_site_are_code(site: Path) -> None:
    page = (site / "from-fit" / "index.html").read_text()
    assert "<code>test_agreement.py</code>" in page
    assert "../tests/" not in page


def test_examples_in_the_api_reference_are_highlighted_code(site: Path) -> None:
    for page in (site / "api").glob("*/index.html"):
        text = page.read_text()
        assert "<blockquote>" not in text  # Markdown would render `>>>` so
        assert "&gt;&gt;&gt;" not in text.replace('<span class="gp">&gt;&gt;&gt; </span>', "")
    run = (site / "api" / "run" / "index.html").read_text()
    assert re.search(r'>Example:</span></p>\s*<div class="language-pycon highlight"><pre>.*<span class="gp">', run)
