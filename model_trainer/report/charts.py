"""Bar charts: where each bar lies. `templates/charts.html` draws them as SVG that follows the width of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_trainer.messages import shown

__all__ = ["Bar", "BarChart", "BarRow", "bar_chart"]

BAR_PIXELS = 15  # from one bar of a row to the next
LINE_PIXELS = 2  # between them
GAP_PIXELS = 7  # between rows
NAMES_PERCENT = 22  # of the width, for the names of the rows
BARS_PERCENT = 68  # for the longest bar; the rest is for its number
MAX_CHARACTERS = 28
NUM_COLOURS = 4  # of the page's style


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        number: what it stands for; written behind its end.
        top, middle, height: pixels, the first two from the top of the chart.
        left, length, end: percent of the width of the chart.
        colour: 0 to 3.
    """

    number: int
    top: int
    middle: float
    height: int
    left: float
    length: float
    end: float
    colour: int


@dataclass(frozen=True)
class BarRow:
    """The bars of one row.

    Attributes:
        name: all of it, and `short`: as much as fits beside the bars.
        right: percent of the width, where its name ends.
        middle: pixels from the top of the chart.
        bars: one of each series.
    """

    name: str
    short: str
    right: float
    middle: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class BarChart:
    """Rows of horizontal bars.

    Attributes:
        title: what is shown, for screen readers.
        rows: from top to bottom.
        legend: the name and colour of each series.
        height: pixels.
    """

    title: str
    rows: tuple[BarRow, ...]
    legend: tuple[tuple[str, int], ...]
    height: int


def bar_chart(rows: Sequence[str], series: Mapping[str, Sequence[int]], title: str) -> BarChart:
    """Horizontal bars, one of each series in every row, with their numbers.

    Args:
        rows: their names.
        series: by name the number in each row.
        title: what is shown, for screen readers.
    """
    largest = max((number for numbers in series.values() for number in numbers), default=0) or 1
    step = BAR_PIXELS * len(series) + GAP_PIXELS
    drawn = []
    for position, row in enumerate(rows):
        top = position * step
        bars = tuple(
            _bar(numbers[position], largest, top + place * BAR_PIXELS, place % NUM_COLOURS)
            for place, numbers in enumerate(series.values())
        )
        drawn.append(BarRow(row, _short(row), NAMES_PERCENT - 1, top + BAR_PIXELS * len(series) / 2, bars))
    legend = tuple((name, place % NUM_COLOURS) for place, name in enumerate(series))
    return BarChart(title, tuple(drawn), legend, height=step * len(rows))


def _bar(number: int, largest: int, top: int, colour: int) -> Bar:
    height = BAR_PIXELS - LINE_PIXELS
    length = round(BARS_PERCENT * number / largest, 2)
    end = round(NAMES_PERCENT + length, 2)
    return Bar(number, top, top + height / 2, height, NAMES_PERCENT, length, end, colour)


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= MAX_CHARACTERS else f"{name[: MAX_CHARACTERS - 1]}…"
