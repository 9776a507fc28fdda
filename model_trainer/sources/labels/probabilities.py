"""Labels with a probability for each class in every row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import LabelsAndClasses
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.text_labels import Vocabulary

__all__ = ["SUM_TOLERANCE", "ProbabilityRows"]

SUM_TOLERANCE = 1e-3  # maximum difference between the sum of a row and 1; rows are not normalized


@final
class ProbabilityRows:
    """Collects class probabilities as sparse rows: 8 bytes per row and 8 per number that is not 0.

    The numbers are in the order of the declared classes, otherwise of the sorted class names of the rows, as
    keras-trainer writes them. The order is checked against the class of each row, if there is a column for it.

    Args:
        class_names: the class list, if declared.
        column: name of the column, for messages.
    """

    def __init__(self, class_names: tuple[str, ...] | None, column: str) -> None:
        self.class_names, self.column = class_names, column
        self.width = None if class_names is None else len(class_names)
        self.starts, self.positions, self.values = array("q", [0]), array("i"), array("f")
        self.vocabulary, self.named = Vocabulary(), array("i")

    def add(self, numbers: Sequence[float], name: Any, written: object) -> None:
        """Adds the probabilities of the next row.

        Args:
            numbers: one per class.
            name: the row's class, or None.
            written: the numbers as written in the file, for messages.

        Raises:
            DataError: they are not probabilities, or not one for each class; the message does not name the row.
        """
        if self.width is None:
            self.width = len(numbers)
        if len(numbers) != self.width:
            is_first = self.class_names is None
            expected = f"the first row has {self.width}" if is_first else f"there are {self.width} classes"
            raise DataError(f"{self.column!r} has {len(numbers)} numbers, but {expected}.")
        total = sum(numbers)
        if not (abs(total - 1) <= SUM_TOLERANCE and min(numbers) >= 0):
            raise DataError(
                f"{self.column!r} should be numbers of at least 0 with the sum 1, got {str(written)[:60]} with the sum "
                f"{total:g}."
            )
        present = [position for position, number in enumerate(numbers) if number]
        self.positions.extend(present)
        self.values.extend([numbers[position] for position in present])
        self.starts.append(len(self.positions))
        self.named.append(-1 if name is None else self.vocabulary.id_of(name, len(self.named)))

    def interpret(self, where: LabelLocation) -> LabelsAndClasses:
        """Rows of probabilities, and the class list.

        Raises:
            DataError: the class list is unknown, or not in the order of the numbers.
        """
        rows = LabelRows(
            np.frombuffer(self.starts, np.int64),
            np.frombuffer(self.positions, np.int32),
            np.frombuffer(self.values, np.float32),
            exclusive=True,
        )
        names = [name for name in self.vocabulary.ids if name is not None]
        if self.class_names is not None:
            if names and set(names) <= set(self.class_names):
                problem = self._disagreement(rows, self.class_names, names, where)
                if problem:
                    logging.warning("%s Check the order of the class list.", problem)
            return rows, self.class_names
        classes = tuple(sorted(names))
        if len(classes) != self.width:
            named = f"the rows are of {len(classes)} classes" if names else "no column names the class"
            raise DataError(
                f"{where.all_labels} has {self.width} numbers in each row, but {named}. "
                "Give the classes in the order of the numbers: classes=('...', ...)."
            )
        problem = self._disagreement(rows, classes, names, where)
        if problem:
            raise DataError(
                f"{problem} The order of the numbers is not that of the sorted names; give it: classes=('...', ...)."
            )
        logging.info(
            "%s: the order of %r is that of the sorted names: %s. Set classes=(...) if it is another.",
            *(where.origin, where.column, ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")),
        )
        return rows, classes

    def _disagreement(
        self, rows: LabelRows, classes: tuple[str, ...], names: list[str], where: LabelLocation
    ) -> str | None:
        """Describes a wrong order, in which most rows, or most rows of a class, have another most likely class."""
        ids = np.frombuffer(self.named, np.int32)
        index_of = {name: index for index, name in enumerate(classes)}
        position = np.array([index_of[name] for name in names], np.int32)
        own = np.where(ids >= 0, position[np.maximum(ids, 0)], -1)
        highest = np.maximum.reduceat(rows.values, rows.starts[:-1])
        entry_row = rows.row_of_entry()
        is_own = rows.classes == own[entry_row]
        own_values = np.zeros(len(rows), np.float32)
        own_values[entry_row[is_own]] = rows.values[is_own]
        differs = (own >= 0) & (own_values < highest)
        totals = np.bincount(own[own >= 0], minlength=len(classes))
        wrong = np.bincount(own[differs], minlength=len(classes))
        # A class of a few images may just be uncertain; swapped classes differ in nearly all of many images.
        swapped = np.flatnonzero((totals >= 10) & (wrong > 0.5 * totals))
        if not len(swapped) and wrong.sum() <= 0.5 * totals.sum():
            return None
        subject = f"of {totals.sum()} rows"
        if len(swapped):
            differs &= own == swapped[0]
            subject = f"of {totals[swapped[0]]} rows of {classes[swapped[0]]!r}"
        first = int(differs.argmax())
        best = classes[int(rows.take(np.array([first])).most_likely()[0])]
        return (
            f"{where.origin}: in {differs.sum()} {subject} another class than the row's own is the most "
            f"likely one, first in {where.row(first)}: {best!r} instead of {classes[own[first]]!r}."
        )
