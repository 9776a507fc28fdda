"""Files that grow by lines while a program runs, and without which it can go on."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence

from absl import logging

from model_trainer.storage import files
from model_trainer.storage.storage import Appender
from model_trainer.storage.trouble import not_written

__all__ = ["LineFile", "csv_lines"]


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows of a table as lines of CSV, each ended by "\\n"."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


class LineFile:
    """A file that grows by whole lines; what cannot be written is left out, and said once in the log.

    Each write is tried anew, so the file goes on when there is room.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._end: Appender | None = None
        self._is_told = False
        self.write("")  # makes the file

    def write(self, text: str) -> None:
        """Appends `text`, which ends in a line break, whole or not at all."""
        try:
            if self._end is None:
                self._end = files.append(self._path)
            if text:
                self._end.write(text.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            if self._is_told:
                return
            self._is_told = True
            logging.warning("%s What comes meanwhile will be missing from it.", not_written(self._path, error))

    def close(self) -> None:
        """Ends it; safe at any time."""
        if self._end is not None:
            self._end.close()
            self._end = None
