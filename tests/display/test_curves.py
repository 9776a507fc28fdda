"""The layout of the charts that show metrics by epoch."""

from __future__ import annotations

import math

import pytest

from model_trainer.display.curves import HEIGHT, WIDTH, curves_by_epoch


def rows(**columns: list[float]) -> list[dict[str, float]]:
    return [
        {"epoch": float(number), **dict(zip(columns, numbers, strict=True)), "learning_rate": 0.1, "seconds": 9.0}
        for number, numbers in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def test_there_is_a_chart_for_the_loss_and_each_metric() -> None:
    charts = curves_by_epoch(rows(loss=[2.0, 1.0], accuracy=[0.5, 0.6], val_loss=[2.5, 2.0], val_map=[0.1, 0.2]))
    assert [chart.title for chart in charts] == ["loss", "accuracy", "map"]
    assert [[curve.name for curve in chart.curves] for chart in charts] == [
        ["training", "validation"],
        ["training"],
        ["validation"],
    ]


def test_validation_has_the_same_color_in_each_chart() -> None:
    charts = curves_by_epoch(rows(loss=[2.0, 1.0], val_loss=[2.5, 2.0], val_map=[0.1, 0.2]))
    assert charts[0].curves[1].color == charts[1].curves[0].color != charts[0].curves[0].color


def test_later_epochs_are_further_right_and_larger_values_higher() -> None:
    (chart,) = curves_by_epoch(rows(loss=[2.0, 1.0, 1.5]))
    (first, second, third) = chart.curves[0].points
    assert first[0] < second[0] < third[0]
    assert first[1] < third[1] < second[1]  # pixels from the top


def test_a_value_is_interpolated_between_the_ticks_around_it() -> None:
    (chart,) = curves_by_epoch(rows(loss=[2.0, 1.3]))
    ticks = {float(tick.text): tick.position for tick in chart.y_ticks}
    below, above = max(value for value in ticks if value <= 1.3), min(value for value in ticks if value >= 1.3)
    expected = ticks[below] + (1.3 - below) / (above - below) * (ticks[above] - ticks[below])
    assert chart.curves[0].points[1][1] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "numbers", [[0.0], [0.5], [0.0, 0.0], [-3.0, 2.0], [1e-9, 2e-9], [123456.0, 4.0], [math.nan, math.inf]], ids=str
)
def test_all_points_and_ticks_lie_inside_the_chart(numbers: list[float]) -> None:
    (chart,) = curves_by_epoch(rows(loss=numbers))
    points = chart.curves[0].points
    assert len(points) == sum(map(math.isfinite, numbers))
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert 2 <= len(chart.y_ticks) <= 7
    assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks)


def test_a_curve_is_interrupted_where_a_value_is_not_finite() -> None:
    (chart,) = curves_by_epoch(rows(loss=[3.0, 2.0, math.nan, 1.0, 0.5]))
    assert [len(line) for line in chart.curves[0].lines] == [2, 2]


def test_a_hundred_epochs_have_at_most_8_ticks() -> None:
    (chart,) = curves_by_epoch(rows(loss=[1.0] * 100))
    assert 4 <= len(chart.x_ticks) <= 8


def test_there_are_no_charts_without_epochs() -> None:
    assert curves_by_epoch([]) == []


@pytest.mark.parametrize("losses", [[1e-13, 2e-13], [1e-45, 1e-44], [5e-324, 0.0], [1.7e308, -1.7e308], [3e-8, 1e7]])
def test_a_chart_has_increasing_ticks_at_any_magnitude(losses: list[float]) -> None:
    (chart,) = curves_by_epoch([{"epoch": float(number), "loss": loss} for number, loss in enumerate(losses, 1)])
    heights = [tick.position for tick in chart.y_ticks]
    assert len(set(heights)) == len(heights) >= 2
