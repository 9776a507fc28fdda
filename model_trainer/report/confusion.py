"""The confusion matrix as a table of shaded cells."""

from __future__ import annotations

from dataclasses import dataclass

from model_trainer.messages import shown
from model_trainer.report.evaluation_file import EvaluationFile

__all__ = ["ConfusionCell", "ConfusionTable", "confusion_table", "short_name"]

MAX_CHARACTERS = 22  # of a name beside the matrix
MAX_CLASSES = 60  # evaluations have a matrix up to 50
ROOMY = 14  # maximum number of classes for which each cell also shows its percentage


@dataclass(frozen=True)
class ConfusionCell:
    """One cell.

    Attributes:
        images: the count.
        percent: of the images of the true class, as text; empty for a class without images.
        shade: 0 to 1, the strength of the color.
        is_right: whether it is on the diagonal.
        title: such as "12 images of cat were predicted as dog (4.8 %)".
    """

    images: int
    percent: str
    shade: float
    is_right: bool
    title: str


@dataclass(frozen=True)
class ConfusionTable:
    """The matrix: rows are true classes, columns predicted ones.

    Attributes:
        names: full and short names of the classes.
        rows: cells.
        size: "roomy", "dense" or "tiny", for the style.
    """

    names: tuple[tuple[str, str], ...]
    rows: tuple[tuple[ConfusionCell, ...], ...]
    size: str


def confusion_table(evaluation: EvaluationFile) -> ConfusionTable | None:
    """Lays out the confusion matrix; None if there is none, such as above 50 classes."""
    confusion = evaluation.confusion
    if confusion is None or confusion.matrix is None or len(confusion.matrix) > MAX_CLASSES:
        return None
    names = tuple((name, short_name(name)) for name in evaluation.classes)
    rows = tuple(
        tuple(
            _cell(count, sum(counts), names[true][1], names[predicted][1], true == predicted)
            for predicted, count in enumerate(counts)
        )
        for true, counts in enumerate(confusion.matrix)
    )
    size = "roomy" if len(names) <= ROOMY else "dense" if len(names) <= 26 else "tiny"
    return ConfusionTable(names, rows, size)


def short_name(name: str, max_characters: int = MAX_CHARACTERS) -> str:
    """As much of a name as fits.

    Example:
        >>> short_name("a very long name of a class")
        'a very long name of a…'
    """
    name = shown(name)
    return name if len(name) <= max_characters else f"{name[: max_characters - 1].rstrip()}…"


def _cell(count: int, total: int, true: str, predicted: str, is_right: bool) -> ConfusionCell:
    fraction = count / total if total else 0.0
    percent = f"{100 * fraction:.0f} %" if fraction >= 0.995 or fraction >= 0.0995 else f"{100 * fraction:.1f} %"
    images = f"{count:,} image{'' if count == 1 else 's'} of {true}"
    verb = "was" if count == 1 else "were"
    # The square root makes the few mistakes of a good model visible.
    shade = round(fraction if is_right else min(1.0, fraction**0.5), 3)
    return ConfusionCell(
        count, percent if total else "", shade, is_right, f"{images} {verb} predicted as {predicted} ({percent})"
    )
