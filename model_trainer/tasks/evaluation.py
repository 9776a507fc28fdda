"""The base of evaluations: metrics over all images, and a table of metrics by class."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Evaluation"]


class Evaluation(ABC):
    """The metrics of a model on some data; each task has its own final class."""

    @abstractmethod
    def metrics(self) -> dict[str, str]:
        """Returns the metrics over all images, by name, formatted for printing."""

    def table(self) -> tuple[list[str], list[list[str]]] | None:
        """Returns column names and formatted rows, one for each class; None for a task without classes."""
        return None

    def _repr_html_(self) -> str:
        from model_trainer.display.pages import render_table

        columns, rows = self.table() or ([], [])
        return render_table("Evaluation", self.metrics(), columns, rows)
