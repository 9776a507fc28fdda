"""The page of `model-trainer doctor`: a diagnosis as a single HTML file."""

from __future__ import annotations

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.show import summary_of
from model_trainer.report.charts import BarChart, bar_chart
from model_trainer.report.class_counts import MAX_CLASSES, class_counts_chart
from model_trainer.report.pages import render_page

__all__ = ["doctor_page"]


def doctor_page(diagnosis: Diagnosis) -> str:
    """Renders `doctor.html`."""
    names = _names_of_classes(diagnosis)
    return render_page(
        "doctor.html",
        diagnosis=diagnosis,
        summary=summary_of(diagnosis),
        num_classes=len(names),
        max_classes=MAX_CLASSES,
        classes=class_counts_chart(diagnosis.classes),
        sizes=_chart_of_sizes(diagnosis),
    )


def _names_of_classes(diagnosis: Diagnosis) -> list[str]:
    return list(dict.fromkeys(name for counts in diagnosis.classes.values() for name in counts))


def _chart_of_sizes(diagnosis: Diagnosis) -> BarChart:
    sizes = diagnosis.sizes
    return bar_chart(list(sizes), {"images": list(sizes.values())}, "Images by their shorter side")
