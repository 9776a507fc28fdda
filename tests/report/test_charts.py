"""Bar charts: their layout, and the SVG that is drawn from it."""

from __future__ import annotations

import re

from model_trainer.report.charts import BarChart, bar_chart
from model_trainer.report.pages import environment


def drawn(chart: BarChart) -> str:
    return environment().from_string('{% from "charts.html" import draw_bars %}{{ draw_bars(c) }}').render(c=chart)


def test_the_length_of_a_bar_is_proportional_to_its_number() -> None:
    chart = bar_chart(["cat", "dog"], {"train": [200, 50], "val": [100, 0]}, "Images")
    lengths = [[bar.length for bar in row.bars] for row in chart.rows]
    assert lengths == [[68, 34], [17, 0]]
    assert all(bar.end == bar.left + bar.length for row in chart.rows for bar in row.bars)


def test_bars_do_not_overlap_and_stay_within_the_chart() -> None:
    chart = bar_chart(["cat", "dog"], {"train": [2, 5], "val": [1, 1]}, "Images")
    edges = [edge for row in chart.rows for bar in row.bars for edge in (bar.top, bar.top + bar.height)]
    assert edges == sorted(edges)
    assert edges[-1] <= chart.height


def test_a_chart_with_only_zeros_is_drawn() -> None:
    assert [bar.length for row in bar_chart(["cat"], {"all": [0]}, "Images").rows for bar in row.bars] == [0]


def test_a_long_name_is_shortened_but_complete_in_its_tooltip() -> None:
    page = drawn(bar_chart(["x" * 40], {"all": [1]}, "Images"))
    assert f">{'x' * 27}…<title>{'x' * 40}</title></text>" in page


def test_only_a_chart_with_several_series_has_a_legend() -> None:
    assert "legend" not in drawn(bar_chart(["cat"], {"all": [1]}, "Images"))
    legend = drawn(bar_chart(["cat"], {name: [1] for name in ("a", "b", "c", "d", "e")}, "Images"))
    assert re.findall(r'swatch series(\d)"></i>(\w)', legend) == list(zip("01230", "abcde", strict=True))


def test_numbers_of_bars_have_thousands_separators() -> None:
    assert ">1,234,567</text>" in drawn(bar_chart(["cat"], {"all": [1_234_567]}, "Images"))
