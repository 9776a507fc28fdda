"""Lays out charts of metrics by epoch; `templates/curves.html` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NOT_METRICS", "Curve", "CurveChart", "Tick", "curves_by_epoch", "nice_ticks"]

WIDTH, HEIGHT = 300, 190  # pixels of a chart
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 24  # around its curves

NOT_METRICS = ("epoch", "learning_rate", "seconds")  # columns of history.csv
TRAINING, VALIDATION = "training", "validation"

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A label of an axis, and its position in pixels."""

    text: str
    position: float


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: such as "validation".
        color: index in the palette of `templates/notebook.css`.
        points: x and y in pixels, from the left and the top.
        lines: the points as polylines; a value that is not finite interrupts the curve.
    """

    name: str
    color: int
    points: tuple[Point, ...]
    lines: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class CurveChart:
    """The curves of one metric by epoch."""

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def curves_by_epoch(rows: Sequence[Mapping[str, float]]) -> list[CurveChart]:
    """A chart of the loss and of each metric, for training and validation.

    Args:
        rows: one per epoch, with "epoch" and its metrics by name; "val_loss" is the validation loss.
    """
    names = dict.fromkeys(name.removeprefix("val_") for row in rows for name in row if name not in NOT_METRICS)
    return [_chart(rows, name) for name in names]


def _chart(rows: Sequence[Mapping[str, float]], name: str) -> CurveChart:
    epochs = [row["epoch"] for row in rows]
    series = {
        label: [row.get(column, math.nan) for row in rows]
        for label, column in ((TRAINING, name), (VALIDATION, f"val_{name}"))
        if any(column in row for row in rows)
    }
    values = [value for column in series.values() for value in column if _can_be_drawn(value)]
    y_ticks = nice_ticks(min([0.0, *values]), max(values, default=1.0))
    x_low, x_high = epochs[0], max(epochs[-1], epochs[0] + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    curves = []
    for label, column in series.items():
        lines: list[list[Point]] = [[]]
        for epoch, value in zip(epochs, column, strict=True):
            if _can_be_drawn(value):
                lines[-1].append((x(epoch), y(value)))
            elif lines[-1]:
                lines.append([])
        points = tuple(point for line in lines for point in line)
        curves.append(
            Curve(
                label,
                (TRAINING, VALIDATION).index(label),
                points,
                tuple(tuple(line) for line in lines if len(line) > 1),
            )
        )
    step = max(1, math.ceil((epochs[-1] - epochs[0]) / 6))
    x_ticks = tuple(Tick(f"{epoch:g}", x(epoch)) for epoch in epochs if (epoch - epochs[0]) % step == 0)
    return CurveChart(name, tuple(curves), x_ticks, tuple(Tick(f"{number:g}", y(number)) for number in y_ticks))


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round values, the first at most `low`, the last at least `high`."""
    if not high - low > 1e-200:
        high = low + 1.0
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= (high - low) / 4.001)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))  # removes the rounding of the product, at any magnitude
    return [round(number * step, digits) for number in range(first, last + 1)]


def _can_be_drawn(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e200  # the difference of two must be finite, too
