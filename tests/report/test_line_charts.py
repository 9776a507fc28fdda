"""The layout of line charts, and the names of metrics in them."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from model_trainer.report.line_charts import LineChart, Series, line_chart, number_text
from model_trainer.report.metric_names import is_fraction, is_lower_better, metric_explanation, metric_name


def y_of(chart: LineChart, value: float) -> float:
    """The vertical position of a value, interpolated between the first and the last tick."""
    first, last = chart.y_ticks[0], chart.y_ticks[-1]
    fraction = (value - float(first.text)) / (float(last.text) - float(first.text))
    return first.position + fraction * (last.position - first.position)


def test_points_lie_at_their_values_on_the_axes() -> None:
    chart = line_chart("loss", [Series("training", [1, 2, 4], [0.9, 0.5, 0.2])], "epoch", from_zero=True)
    data = json.loads(chart.readout)
    assert data["x"] == [chart.left, pytest.approx(chart.left + (chart.right - chart.left) / 3, abs=0.1), chart.right]
    assert data["lines"][0]["y"] == pytest.approx([y_of(chart, value) for value in (0.9, 0.5, 0.2)], abs=0.11)
    assert chart.lines[0].lines == (
        " ".join(f"{x:g},{y:g}" for x, y in zip(data["x"], data["lines"][0]["y"], strict=True)),
    )


def test_series_of_different_length_share_the_axis() -> None:
    chart = line_chart("loss", [Series("a", [1, 2], [1.0, 0.5]), Series("b", [2, 3], [0.7, 0.6])], "epoch")
    data = json.loads(chart.readout)
    assert data["at"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert [line["text"] for line in data["lines"]] == [["1", "0.5", "–"], ["–", "0.7", "0.6"]]


@pytest.mark.parametrize("values", [[], [math.nan, math.inf], [0.5], [0.5, 0.5], [1e300, -1e300], [1e-9, 2e-9]])
def test_a_chart_stays_within_its_frame_for_any_values(values: list[float]) -> None:
    chart = line_chart("loss", [Series("training", list(range(len(values))), values)], "epoch")
    positions = [y for y in json.loads(chart.readout)["lines"][0]["y"] if y is not None]
    assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for y in positions)
    assert all(math.isfinite(tick.position) for tick in (*chart.x_ticks, *chart.y_ticks))


def test_a_long_series_is_thinned_and_keeps_its_ends() -> None:
    chart = line_chart("loss", [Series("training", range(100_000), [1 / (1 + x) for x in range(100_000)])], "step")
    at = json.loads(chart.readout)["at"]
    assert len(at) <= 402
    assert (at[0], at[-1]) == ("step 0", "step 99,999")


def test_ticks_that_would_overlap_are_left_out() -> None:
    chart = line_chart("loss", [Series("training", [1, 32, 33, 34, 128], [1.0] * 5)], "step")
    positions = [tick.position for tick in chart.x_ticks]
    assert min(b - a for a, b in itertools.pairwise(positions)) > 30


def test_numbers_have_at_most_four_significant_digits() -> None:
    assert [number_text(value) for value in (0.123456, 12345.6, 1e-7, math.nan, None)] == [
        "0.1235",
        "12,346",
        "1e-07",
        "–",
        "–",
    ]


def test_metrics_have_readable_names_and_explanations() -> None:
    names = {
        "map": "mAP",
        "macro_auroc": "Macro AUROC",
        "micro_f1_at_thresholds": "Micro F1 at thresholds",
        "recall_at_5": "Recall at 5",
        "my_metric": "My metric",
    }
    assert {name: metric_name(name) for name in names} == names
    assert "among its 5 most probable" in metric_explanation("recall_at_5")
    assert metric_explanation("micro_f1_at_thresholds").endswith(
        "over all decisions together; at the threshold of each tag"
    )
    assert metric_explanation("my_metric") == ""


def test_lower_losses_are_better_and_not_every_metric_is_a_fraction() -> None:
    assert is_lower_better("log_loss")
    assert is_lower_better("hamming_loss_at_thresholds")
    assert is_fraction("accuracy", 0.5, 0.4, 0.6)
    assert not is_fraction("ece", 0.5)
    assert not is_fraction("matthews_correlation", 0.5)
    assert not is_fraction("accuracy", None)
