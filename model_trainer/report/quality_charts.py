"""Charts of probabilities: calibration, accuracy against a confidence threshold, precision-recall curves of tags."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_trainer.report.evaluation_file import Calibration, CalibrationState, Curve, Threshold
from model_trainer.report.line_charts import LineChart, Series, line_chart, number_text

__all__ = ["TagCurves", "calibration_chart", "selective_chart", "tag_curves"]

MIN_IMAGES = 5  # of a bin that is drawn


def calibration_chart(calibration: Calibration) -> LineChart:
    """The reliability diagram: accuracy by confidence, before and after temperature scaling; bars are images."""
    states = [("before", calibration.before, 0), ("after", calibration.after, 1)]
    names = {"before": "uncalibrated", "after": "calibrated"} if calibration.after is not None else {"before": "model"}
    series = [_reliability(names[name], state, color) for name, state, color in states if state is not None]
    total = sum(each.images for each in calibration.before.bins) or 1
    return line_chart(
        "Accuracy",
        series,
        "confidence",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        bars=[(each.low, each.high, each.images / total) for each in calibration.before.bins],
        diagonal=True,
        position=lambda x: f"confidence {x:.2f}",
    )


def _reliability(name: str, state: CalibrationState, color: int) -> Series:
    # The accuracy of a few images is mostly chance, so their bin is left out.
    min_images = min(MIN_IMAGES, max((each.images for each in state.bins), default=0))
    bins = [each for each in state.bins if each.images >= max(min_images, 1) and each.accuracy is not None]
    # The middles of the bins, so that both curves share their positions.
    return Series(name, [(each.low + each.high) / 2 for each in bins], [each.accuracy or 0.0 for each in bins], color)


def selective_chart(thresholds: list[Threshold]) -> LineChart:
    """The accuracy of the images whose confidence reaches a threshold, and their fraction."""
    xs = [each.threshold for each in thresholds]
    return line_chart(
        "Accuracy and images kept",
        [
            Series("accuracy", xs, [math.nan if each.accuracy is None else each.accuracy for each in thresholds], 0),
            Series("images kept", xs, [math.nan if each.coverage is None else each.coverage for each in thresholds], 1),
        ],
        "threshold",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        position=lambda x: f"threshold {x:.2f}",
    )


@dataclass(frozen=True)
class TagCurves:
    """Precision-recall curves in one chart, of which the script highlights one.

    Attributes:
        chart: the axes, without lines.
        curves: name, average precision as text, and points of the polyline, for each tag.
    """

    chart: LineChart
    curves: tuple[tuple[str, str, str], ...]


def tag_curves(curves: list[Curve]) -> TagCurves | None:
    """Lays out the precision-recall curves; None if there are none."""
    if not curves:
        return None
    chart = line_chart("Precision", [], "recall", x_range=(0.0, 1.0), y_range=(0.0, 1.0))
    laid_out = []
    for curve in curves:
        pairs = [(r, p) for r, p in zip(curve.recall, curve.precision, strict=True) if r is not None and p is not None]
        pairs.sort(key=lambda pair: (pair[0], -pair[1]))
        points = [
            (
                round(chart.left + r * (chart.right - chart.left), 1),
                round(chart.bottom - p * (chart.bottom - chart.top), 1),
            )
            for r, p in pairs
        ]
        line = " ".join(f"{x:g},{y:g}" for x, y in points)
        laid_out.append((curve.tag, number_text(curve.average_precision), line))
    return TagCurves(chart, tuple(laid_out))
