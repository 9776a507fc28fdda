"""The page of `model-trainer doctor`: a diagnosis as one HTML file."""

from __future__ import annotations

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.show import summary_of
from model_trainer.report.charts import BarChart, bar_chart
from model_trainer.report.pages import render_page

__all__ = ["doctor_page"]

MAX_CLASSES = 40  # in the chart; an even number


def doctor_page(diagnosis: Diagnosis) -> str:
    """The page `doctor.html`."""
    names = _names_of_classes(diagnosis)
    return render_page(
        "doctor.html",
        diagnosis=diagnosis,
        summary=summary_of(diagnosis),
        num_classes=len(names),
        most_classes=MAX_CLASSES,
        classes=_chart_of_classes(diagnosis, names),
        sizes=_chart_of_sizes(diagnosis),
    )


def _names_of_classes(diagnosis: Diagnosis) -> list[str]:
    return list(dict.fromkeys(name for part in diagnosis.classes.values() for name in part))


def _chart_of_classes(diagnosis: Diagnosis, names: list[str]) -> BarChart:
    """All classes, or as many of the largest as of the smallest."""
    counts = diagnosis.classes
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: -sum(part.get(name, 0) for part in counts.values()))
        names = names[: MAX_CLASSES // 2] + names[-MAX_CLASSES // 2 :]
    series = {part: [of.get(name, 0) for name in names] for part, of in counts.items()}
    return bar_chart(names, series, "Images of each class")


def _chart_of_sizes(diagnosis: Diagnosis) -> BarChart:
    sizes = diagnosis.sizes
    return bar_chart(list(sizes), {"images": list(sizes.values())}, "Images by their shorter side")
