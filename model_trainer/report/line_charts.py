"""The geometry of line charts. `templates/lines.html` draws them as SVG; `templates/report.js` adds the cursor."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_trainer.display.curves import Tick, nice_ticks

__all__ = ["LineChart", "Series", "line_chart", "number_text"]

WIDTH, HEIGHT = 330, 204  # of the view box
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 26  # around the curves
MAX_POINTS = 400  # of a series; more of them cannot be distinguished
MAX_DOTS = 40  # points of a series that get a dot
NUM_COLORS = 8  # of the page's style


@dataclass(frozen=True)
class Series:
    """The values of one curve; a value that is not finite interrupts it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A drawn series.

    Attributes:
        lines: the value of `points` of each uninterrupted polyline.
        dots: x and y of each point; empty if there are many.
        last: the last value as text, for the legend.
    """

    name: str
    color: int
    dashed: bool
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    last: str


@dataclass(frozen=True)
class LineChart:
    """The curves of one chart, in pixels of the view box.

    Attributes:
        title: heading of the chart.
        summary: what it shows, for screen readers.
        at: the first position of the cursor, such as "epoch 5".
        readout: JSON for the script: `{"x": [...], "at": [...], "lines": [{"y": [...], "text": [...]}]}`.
        bars: x, y, width and height of bars behind the curves.
        diagonal: whether to draw the line from the lower left to the upper right corner.
    """

    title: str
    summary: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    at: str
    readout: str
    x_label: str
    bars: tuple[tuple[float, float, float, float], ...] = ()
    diagonal: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    bars: Sequence[tuple[float, float, float]] = (),
    diagonal: bool = False,
    position: Callable[[float], str] | None = None,
) -> LineChart:
    """Lays out curves over a common x axis.

    Args:
        title: heading of the chart.
        series: the curves.
        x_label: what x is, such as "epoch".
        x_range, y_range: the axes; None: from the data.
        from_zero: the y axis includes 0.
        bars: bars behind the curves: from x, to x, height as a fraction of the chart.
        diagonal: draw the line of equal x and y.
        position: formats x for the legend; None: "epoch 5".

    Example:
        >>> chart = line_chart("loss", [Series("training", [1, 2], [0.8, 0.5])], "epoch")
        >>> chart.lines[0].last, chart.at
        ('0.5', 'epoch 2')
    """
    series = [_thinned(each) for each in series]
    xs = sorted({x for each in series for x in each.x if math.isfinite(x)})
    values = [y for each in series for y in each.y if _can_be_drawn(y)]
    x_low, x_high = x_range or (xs[0] if xs else 0.0, xs[-1] if xs else 1.0)
    if not x_high > x_low:
        half = max(0.5, abs(x_low) / 2)  # wider than the gap between two floats, whatever x is
        x_low, x_high = x_low - half, x_low + half
    y_ticks = _y_ticks(values, y_range, from_zero)
    y_low, y_high = y_range or (y_ticks[0], y_ticks[-1])

    def to_x(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def to_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    position = position or (lambda x: f"{x_label} {x:,g}")
    readout = {
        "x": [to_x(x) for x in xs],
        "at": [position(x) for x in xs],
        "lines": [_readout(each, xs, to_y) for each in series],
    }
    base = HEIGHT - BOTTOM
    return LineChart(
        title=title,
        summary=_summary(title, series, x_label),
        lines=tuple(_line(each, to_x, to_y) for each in series),
        x_ticks=tuple(Tick(f"{x:,g}", to_x(x)) for x in _x_ticks(xs, x_low, x_high, x_range is not None)),
        y_ticks=tuple(Tick(_tick_text(y), to_y(y)) for y in y_ticks),
        at=position(xs[-1]) if xs else "",
        readout=json.dumps(readout, separators=(",", ":")),
        x_label=x_label,
        bars=tuple(
            (
                to_x(start),
                round(base - height * (base - TOP), 1),
                round(to_x(stop) - to_x(start) - 1, 1),
                round(height * (base - TOP), 1),
            )
            for start, stop, height in bars
        ),
        diagonal=diagonal,
    )


def number_text(value: float | None) -> str:
    """Formats a value for reading: four significant digits, "–" if it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _tick_text(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,g}"


def _thinned(series: Series) -> Series:
    """Every n-th point and the last one, of a series with very many."""
    step = math.ceil(len(series.x) / MAX_POINTS)
    if step <= 1:
        return series
    kept = sorted({*range(0, len(series.x), step), len(series.x) - 1})
    return Series(series.name, [series.x[k] for k in kept], [series.y[k] for k in kept], series.color, series.dashed)


def _y_ticks(values: list[float], y_range: tuple[float, float] | None, from_zero: bool) -> list[float]:
    if y_range is not None:
        low, high = y_range
        return [low + (high - low) * number / 5 for number in range(6)] if y_range != (0.0, 1.0) else _FIFTHS
    return nice_ticks(min([0.0, *values] if from_zero else values, default=0.0), max(values, default=1.0))


_FIFTHS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def _x_ticks(xs: list[float], low: float, high: float, is_fixed: bool) -> list[float]:
    if is_fixed:
        return [low + (high - low) * number / 5 for number in range(6)] if (low, high) != (0.0, 1.0) else _FIFTHS
    gaps = {later - earlier for earlier, later in itertools.pairwise(xs)}
    if len(xs) <= 8 and len(gaps) <= 1:
        return xs
    return [x for x in nice_ticks(low, high) if low <= x <= high]


def _line(series: Series, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> Line:
    lines: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y, strict=True):
        if _can_be_drawn(y):
            lines[-1].append((to_x(x), to_y(y)))
        elif lines[-1]:
            lines.append([])
    points = [point for line in lines for point in line]
    finite = [y for y in series.y if _can_be_drawn(y)]
    return Line(
        name=series.name,
        color=series.color % NUM_COLORS,
        dashed=series.dashed,
        lines=tuple(" ".join(f"{x:g},{y:g}" for x, y in line) for line in lines if len(line) > 1),
        dots=tuple(points) if len(points) <= MAX_DOTS else (),
        last=number_text(finite[-1] if finite else None),
    )


def _readout(series: Series, xs: list[float], to_y: Callable[[float], float]) -> dict[str, list[float | str | None]]:
    by_x = dict(zip(series.x, series.y, strict=True))
    values = [by_x.get(x, math.nan) for x in xs]
    return {
        "y": [to_y(y) if _can_be_drawn(y) else None for y in values],
        "text": [number_text(y) for y in values],
    }


def _summary(title: str, series: Sequence[Series], x_label: str) -> str:
    parts = []
    for each in series:
        finite = [y for y in each.y if _can_be_drawn(y)]
        if finite:
            parts.append(f"{each.name} from {number_text(finite[0])} to {number_text(finite[-1])}")
    return f"{title} by {x_label}: {'; '.join(parts) or 'no values'}"


def _can_be_drawn(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e200  # the difference of two must be finite, too
