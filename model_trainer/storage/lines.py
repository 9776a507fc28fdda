"""Text files that grow line by line, such as logs and CSV tables; a failed write does not stop the program."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence

from absl import logging

from model_trainer.storage import files
from model_trainer.storage.storage import Appender
from model_trainer.storage.write_errors import not_written

__all__ = ["LineFile", "csv_lines"]


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows of a table as lines of CSV, each ending in "\\n"."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


class LineFile:
    """A file that grows by complete lines; a failed write is skipped, and the first one is logged.

    Later writes are still attempted, so the file continues as soon as there is disk space.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._appender: Appender | None = None
        self._has_warned = False
        self.write("")  # creates the file

    def write(self, text: str) -> None:
        """Appends `text`, which ends in a line break, all of it or nothing."""
        try:
            if self._appender is None:
                self._appender = files.append(self._path)
            if text:
                self._appender.write(text.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            if self._has_warned:
                return
            self._has_warned = True
            logging.warning("%s Lines until then will be missing from it.", not_written(self._path, error))

    def close(self) -> None:
        """Closes the file; may be called more than once."""
        if self._appender is not None:
            self._appender.close()
            self._appender = None
