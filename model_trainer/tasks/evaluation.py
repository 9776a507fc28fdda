"""The base of evaluations: metrics over all images and by class, and the images behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.metrics.estimate import Estimate

__all__ = ["Evaluation", "Gallery", "GalleryImage"]


@dataclass(frozen=True)
class GalleryImage:
    """An image to show.

    Attributes:
        index: the row of the image among those evaluated.
        class_index: the class that the attribution map explains, such as the predicted one.
        caption: a few words below the image, such as "dog 0.98, is cat 0.01".
    """

    index: int
    class_index: int
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Images worth a look, such as the most confident mistakes.

    Attributes:
        name: for files and links, such as "confident_mistakes".
        title, explanation: what the images are, and what they tell the reader of a report.
        images: the images, the most informative first.
    """

    name: str
    title: str
    explanation: str
    images: tuple[GalleryImage, ...]


class Evaluation(ABC):
    """The metrics of a model on some data; each task has its own final class.

    Only `metrics()` is required; a task of your own overrides what else it has, and the report shows that.

    Attributes:
        num_images, num_bad: numbers of images that could and could not be read.
        classes: names of the classes.
    """

    num_images: int
    num_bad: int
    classes: tuple[str, ...]

    @property
    def temperature(self) -> float | None:
        """The temperature that calibrates the probabilities; None if there is none."""
        return None

    @abstractmethod
    def metrics(self) -> dict[str, str]:
        """Returns the metrics over all images, by name, formatted for printing, with intervals; the headline first."""

    def estimates(self) -> dict[str, Estimate]:
        """Returns every metric over all images, by name; the first is the main one."""
        return {}

    def table(self) -> tuple[list[str], list[list[str]]] | None:
        """Returns column names and formatted rows, one for each class; None for a task without classes."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics as `evaluation.json` stores them, in strict JSON; None stands for undefined."""
        estimates = self.estimates()
        return {
            "main_metric": next(iter(estimates), None),
            "metrics": {name: estimate.to_dict() for name, estimate in estimates.items()},
        }

    def image_columns(self) -> dict[str, np.ndarray | list[str]]:
        """Returns the columns of `predictions.csv` after `image`, one value for each image."""
        return {}

    def scores(self) -> dict[str, np.ndarray]:
        """Returns a value for each image, float `(num_images,)`: "correct" and "loss" where the task has them."""
        return {}

    def galleries(self) -> list[Gallery]:
        """Returns the images to show, grouped by the reason to look at them."""
        return []

    def subset(self, rows: np.ndarray) -> dict[str, Estimate]:
        """Returns the headline metrics of some of the images, for slices.

        Args:
            rows: indices of images, int `(n,)`, or a mask, bool `(num_images,)`.
        """
        return {}

    def _repr_html_(self) -> str:
        from model_trainer.display.pages import render_table

        columns, rows = self.table() or ([], [])
        return render_table("Evaluation", self.metrics(), columns, rows)
