"""The HTML representation of examples: the number of images per class, and some of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_trainer.display.pages import render_fragment
from model_trainer.images.thumbnail import Thumbnail, make_thumbnail
from model_trainer.messages import counted
from model_trainer.sources.labels.wording import label_text

if TYPE_CHECKING:
    from model_trainer.sources.examples import Examples

__all__ = ["examples_html"]

MAX_CLASSES = 20
MAX_IMAGES = 12


def examples_html(examples: Examples) -> str:
    """Renders a table of the number of images per class, and thumbnails of evenly spaced examples."""
    counts = examples.counts()
    largest = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    shown = range(len(counts)) if len(counts) <= MAX_CLASSES else [int(index) for index in largest]
    max_count = max(1, int(counts.max(initial=0)))
    return render_fragment(
        "examples.html",
        heading=f"{counted(len(examples), 'image{s}')} of {counted(len(counts), 'class{es}')}",
        origin=examples.origin,
        rows=[
            {
                "name": examples.classes[index],
                "count": int(counts[index]),
                "percent": round(100 * int(counts[index]) / max_count, 1),
            }
            for index in shown
        ],
        num_more=len(counts) - len(shown),
        thumbnails=_thumbnails(examples),
    )


def _thumbnails(examples: Examples) -> list[Thumbnail]:
    chosen = np.unique(np.linspace(0, len(examples) - 1, MAX_IMAGES).astype(np.int64)) if len(examples) else np.empty(0)
    sample = examples.take(chosen.astype(np.int64))
    labels = sample.label_rows().dense(len(sample.classes))
    return [_thumbnail(sample, index, label_text(labels[index], sample.classes)) for index in range(len(sample))]


def _thumbnail(examples: Examples, index: int, label: str) -> Thumbnail:
    row, crop = int(examples.rows[index]), None
    if examples.crops is not None and examples.crops[index][2] > 0:
        top, left, height, width = map(int, examples.crops[index])
        crop = (top, left, height, width)
    return make_thumbnail(lambda: examples.images.read(row), examples.name(index), label, crop)
