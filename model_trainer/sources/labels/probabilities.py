"""A probability for each class in every row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import Interpreted
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.texts import Vocabulary

__all__ = ["SUM_TOLERANCE", "ProbabilityRows"]

SUM_TOLERANCE = 1e-3  # how far the sum of a row may be from 1; its numbers are kept as they are written


@final
class ProbabilityRows:
    """Probabilities as sparse rows: 8 bytes a row and 8 for each that is not 0.

    Their order is that of the given classes, otherwise of the sorted names of the rows' classes, as keras-trainer
    writes them. That it fits is checked against the class that each row names.

    Args:
        given: the class list, if given.
        column: where they stand, for messages.
    """

    def __init__(self, given: tuple[str, ...] | None, column: str) -> None:
        self.given, self.column = given, column
        self.width = None if given is None else len(given)
        self.starts, self.positions, self.values = array("q", [0]), array("i"), array("f")
        self.vocabulary, self.named = Vocabulary(), array("i")

    def add(self, numbers: Sequence[float], name: Any, written: object) -> None:
        """Takes the probabilities of the next row.

        Args:
            name: the row's class; None where it names none.
            written: the numbers as they stand there, for messages.

        Raises:
            DataError: they are no probabilities, or not as many as before; says so without the place.
        """
        if self.width is None:
            self.width = len(numbers)
        if len(numbers) != self.width:
            expected = f"the first row has {self.width}" if self.given is None else f"there are {self.width} classes"
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

    def interpret(self, where: LabelLocation) -> Interpreted:
        """Rows of probabilities, and the class list.

        Raises:
            DataError: the class list is not known, or not in the order of the numbers.
        """
        rows = LabelRows(
            np.frombuffer(self.starts, np.int64),
            np.frombuffer(self.positions, np.int32),
            np.frombuffer(self.values, np.float32),
            exclusive=True,
        )
        names = [name for name in self.vocabulary.ids if name is not None]
        if self.given is not None:
            if names and set(names) <= set(self.given):
                problem = self._disagreement(rows, self.given, names, where)
                if problem:
                    logging.warning("%s Check the order of the given classes.", problem)
            return rows, self.given
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
            "%s: the order of %r is that of the sorted names: %s. Say classes=(...) if it is another.",
            *(where.origin, where.column, ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")),
        )
        return rows, classes

    def _disagreement(
        self, rows: LabelRows, classes: tuple[str, ...], names: list[str], where: LabelLocation
    ) -> str | None:
        """What is wrong with the order: most rows, or most of one class, have another class as the most likely one."""
        ids = np.frombuffer(self.named, np.int32)
        place_of = {name: place for place, name in enumerate(classes)}
        position = np.array([place_of[name] for name in names], np.int32)
        own = np.where(ids >= 0, position[np.maximum(ids, 0)], -1)
        highest = np.maximum.reduceat(rows.values, rows.starts[:-1])
        entry_row = rows.row_of_entry()
        is_own = rows.classes == own[entry_row]
        of_own = np.zeros(len(rows), np.float32)
        of_own[entry_row[is_own]] = rows.values[is_own]
        differs = (own >= 0) & (of_own < highest)
        totals = np.bincount(own[own >= 0], minlength=len(classes))
        wrong = np.bincount(own[differs], minlength=len(classes))
        # Classes of a few images may well be uncertain ones; swapped classes differ in nearly all of many.
        swapped = np.flatnonzero((totals >= 10) & (wrong > 0.5 * totals))
        if not len(swapped) and wrong.sum() <= 0.5 * totals.sum():
            return None
        of = f"of {totals.sum()} rows"
        if len(swapped):
            differs &= own == swapped[0]
            of = f"of {totals[swapped[0]]} rows of {classes[swapped[0]]!r}"
        first = int(differs.argmax())
        best = classes[int(rows.take(np.array([first])).most_likely()[0])]
        return (
            f"{where.origin}: in {differs.sum()} {of} another class than the row's own is the most "
            f"likely one, first in {where.row(first)}: {best!r} instead of {classes[own[first]]!r}."
        )
