"""The page of the doctor, for real data sets."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_trainer.diagnosis.data import examine
from model_trainer.report.doctor import doctor_page


class Page(HTMLParser):
    """Parses a page; fails if a tag is closed that was not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((48, 48)).save(path)


def test_the_page_needs_no_network_and_is_well_formed(colors: Path) -> None:
    page = doctor_page(examine(colors, min_size=64))
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.tags.count("img") >= 24
    assert not re.search(r'(src|href)="(?!data:image/jpeg;base64,|#)', page)
    assert "url(" not in page
    assert "@import" not in page


def test_each_finding_has_a_section_that_the_list_links_to(colors: Path) -> None:
    diagnosis = examine(colors, min_size=64)
    page = doctor_page(diagnosis)
    ids = [finding.id for finding in diagnosis.findings]
    assert ids
    assert re.findall(r'<section class="finding \w+" id="([^"]+)"', page) == ids
    assert re.findall(r'href="#([^"]+)"', page) == ids


def test_hostile_file_and_class_names_are_escaped(tmp_path: Path) -> None:
    root = tmp_path / "a & b <script>alert(0)<"
    names = ["<b>cat", "\"dog\" & 'co'", "<script>alert(1)<"]
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(10):
            draw(root / name / f"{number}.png", 10 * label + number)
    with open(os.fsencode(root / "<b>cat") + b"/\xff\x1b[31m<script>\"'&.jpg", "wb"):
        pass
    Image.new("RGB", (9, 9)).save(root / "<b>cat" / '"><img src=x onerror=alert(1)>\n.png')
    page = doctor_page(examine(root))
    page.encode()
    parsed = Page(page)
    for name in (str(root), *names, "\\udcff\\x1b[31m<script>\"'&.jpg", '"><img src=x onerror=alert(1)>\\n.png'):
        assert name in parsed.text
    assert "\x1b" not in page
    assert "script" not in parsed.tags
    assert not any(name.startswith("on") for name in parsed.attributes)


def test_the_largest_and_the_smallest_of_many_classes_are_drawn(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"class{number:02}").mkdir()
        for image in range(2 if number < 25 else 1):
            draw(tmp_path / f"class{number:02}" / f"{image}.png", 2 * number + image)
    page = doctor_page(examine(tmp_path))
    assert "<p>The 20 largest and the 20 smallest of 50 classes.</p>" in page
    drawn = re.findall(r'class="row">(class\d\d)', page)
    assert drawn == [f"class{number:02}" for number in (*range(20), *range(30, 50))]


def test_a_data_set_without_findings_has_no_empty_list(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            draw(tmp_path / "data" / name / f"{number}.png", 10 * label + number)
    diagnosis = examine(tmp_path / "data")
    page = doctor_page(diagnosis)
    assert diagnosis.findings == ()
    assert "There are no faults, so you can train on this data." in page
    assert "<ul" not in page


@pytest.mark.parametrize(("count", "note"), [(24, None), (25, "doctor.json lists all")])
def test_a_finding_with_more_images_than_shown_names_the_file_with_all(
    tmp_path: Path, count: int, note: str | None
) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(count):
        draw(tmp_path / "cat" / f"{number}.png", number)
    page = doctor_page(examine(tmp_path, min_size=64))
    assert ('class="more"' in page) == bool(note)
    assert note is None or note in page


def test_a_class_may_be_named_all_and_a_single_split_is_not_named(tmp_path: Path) -> None:
    for label, name in enumerate(("all", "none")):
        (tmp_path / "data" / name).mkdir(parents=True)
        draw(tmp_path / "data" / name / "1.png", label)
    page = doctor_page(examine(tmp_path / "data", min_size=64))
    assert "<span>all</span>" in page
    assert "<span>none</span>" in page
    assert "all / " not in page
