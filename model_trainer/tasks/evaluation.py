"""What every evaluation of a task has: metrics over all images, and a table of each class."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Evaluation"]


class Evaluation(ABC):
    """How good a model is on some data; each task has its own."""

    @abstractmethod
    def metrics(self) -> dict[str, str]:
        """Of all images, by name, as they are printed."""

    def table(self) -> tuple[list[str], list[list[str]]] | None:
        """Of each class: the names of the columns, and the rows as they are printed. None where there is no such."""
        return None

    def _repr_html_(self) -> str:
        from model_trainer.display.pages import render_table

        columns, rows = self.table() or ([], [])
        return render_table("Evaluation", self.metrics(), columns, rows)
