"""The page of `model-trainer doctor`: a diagnosis as a single HTML file."""

from __future__ import annotations

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.show import summary_of
from model_trainer.report.charts import BarChart, bar_chart
from model_trainer.report.pages import render_page

__all__ = ["doctor_page"]

MAX_CLASSES = 40  # in the chart; an even number


def doctor_page(diagnosis: Diagnosis) -> str:
    """Renders `doctor.html`."""
    names = _names_of_classes(diagnosis)
    return render_page(
        "doctor.html",
        diagnosis=diagnosis,
        summary=summary_of(diagnosis),
        num_classes=len(names),
        max_classes=MAX_CLASSES,
        classes=_chart_of_classes(diagnosis, names),
        sizes=_chart_of_sizes(diagnosis),
    )


def _names_of_classes(diagnosis: Diagnosis) -> list[str]:
    return list(dict.fromkeys(name for counts in diagnosis.classes.values() for name in counts))


def _chart_of_classes(diagnosis: Diagnosis, names: list[str]) -> BarChart:
    """A chart of all classes, or of the largest and the smallest ones if there are too many."""
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: -sum(counts.get(name, 0) for counts in diagnosis.classes.values()))
        names = names[: MAX_CLASSES // 2] + names[-MAX_CLASSES // 2 :]
    series = {split: [counts.get(name, 0) for name in names] for split, counts in diagnosis.classes.items()}
    return bar_chart(names, series, "Images of each class")


def _chart_of_sizes(diagnosis: Diagnosis) -> BarChart:
    sizes = diagnosis.sizes
    return bar_chart(list(sizes), {"images": list(sizes.values())}, "Images by their shorter side")
