"""The chart of how many images each class has."""

from __future__ import annotations

from collections.abc import Mapping

from model_trainer.report.charts import BarChart, bar_chart

__all__ = ["MAX_CLASSES", "class_counts_chart"]

MAX_CLASSES = 40  # in the chart; an even number


def class_counts_chart(counts: Mapping[str, Mapping[str, int]]) -> BarChart:
    """A chart of all classes, or of the largest and the smallest ones if there are too many.

    Args:
        counts: by split, the number of images of each class.
    """
    names = list(dict.fromkeys(name for each in counts.values() for name in each))
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: -sum(each.get(name, 0) for each in counts.values()))
        names = names[: MAX_CLASSES // 2] + names[-MAX_CLASSES // 2 :]
    series = {split: [each.get(name, 0) for name in names] for split, each in counts.items()}
    return bar_chart(names, series, "Images of each class")
