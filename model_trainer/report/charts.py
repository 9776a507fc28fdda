"""The geometry of bar charts. `templates/charts.html` draws them as SVG that scales with the width of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_trainer.messages import shown

__all__ = ["Bar", "BarChart", "BarRow", "bar_chart"]

BAR_PIXELS = 15  # height of a bar with the space below it
LINE_PIXELS = 2  # space between the bars of a row
GAP_PIXELS = 7  # space between rows
NAMES_PERCENT = 22  # of the width, for the names of the rows
BARS_PERCENT = 68  # of the width, for the longest bar; the rest is for its number
MAX_CHARACTERS = 28
NUM_COLORS = 4  # of the page's style


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        number: the value that it represents, written after its end.
        top, middle: pixels from the top of the chart.
        height: pixels.
        left, length, end: percent of the width of the chart.
        color: index of a color of the page's style, 0 to 3.
    """

    number: int
    top: int
    middle: float
    height: int
    left: float
    length: float
    end: float
    color: int


@dataclass(frozen=True)
class BarRow:
    """The bars of one row.

    Attributes:
        name: the full name.
        short: as much of the name as fits beside the bars.
        right: right edge of the name in percent of the width.
        middle: pixels from the top of the chart.
        bars: one for each series.
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
        title: what the chart shows, for screen readers.
        rows: from top to bottom.
        legend: the name and color of each series.
        height: pixels.
    """

    title: str
    rows: tuple[BarRow, ...]
    legend: tuple[tuple[str, int], ...]
    height: int


def bar_chart(rows: Sequence[str], series: Mapping[str, Sequence[int]], title: str) -> BarChart:
    """Lays out horizontal bars with their numbers, one bar for each series in every row.

    Args:
        rows: the names of the rows.
        series: the numbers of each series by its name, one number for each row.
        title: what the chart shows, for screen readers.

    Example:
        >>> chart = bar_chart(["cat", "dog"], {"train": [200, 100]}, title="Images of each class")
        >>> [bar.length for row in chart.rows for bar in row.bars]
        [68.0, 34.0]
    """
    max_number = max((number for numbers in series.values() for number in numbers), default=0) or 1
    step = BAR_PIXELS * len(series) + GAP_PIXELS
    drawn = []
    for position, row in enumerate(rows):
        top = position * step
        bars = tuple(
            _bar(numbers[position], max_number, top + index * BAR_PIXELS, index % NUM_COLORS)
            for index, numbers in enumerate(series.values())
        )
        drawn.append(BarRow(row, _short(row), NAMES_PERCENT - 1, top + BAR_PIXELS * len(series) / 2, bars))
    legend = tuple((name, index % NUM_COLORS) for index, name in enumerate(series))
    return BarChart(title, tuple(drawn), legend, height=step * len(rows))


def _bar(number: int, max_number: int, top: int, color: int) -> Bar:
    height = BAR_PIXELS - LINE_PIXELS
    length = round(BARS_PERCENT * number / max_number, 2)
    end = round(NAMES_PERCENT + length, 2)
    return Bar(number, top, top + height / 2, height, NAMES_PERCENT, length, end, color)


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= MAX_CHARACTERS else f"{name[: MAX_CHARACTERS - 1]}…"
