"""docs/slow-tests.md names what `script/test` leaves out."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "slow-tests.md").read_text()
MARK = re.compile(r"\bmark\.slow\b")


def test_each_module_with_slow_tests_is_listed_with_its_duration_and_no_other() -> None:
    rows = re.findall(r"^\| `(tests/\S+\.py)` \|.*\| about ([\d.]+) (s|min) \|$", PAGE, re.MULTILINE)
    marked = {path.relative_to(TESTS.parent).as_posix() for path in TESTS.rglob("test_*.py") if has_slow_tests(path)}
    assert sorted(path for path, _, _ in rows) == sorted(marked)


def has_slow_tests(path: Path) -> bool:
    return path != Path(__file__) and MARK.search(path.read_text(encoding="utf-8")) is not None
