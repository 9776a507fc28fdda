"""Files of any storage that a library makes grow, which can only write local ones."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path, PurePath

from model_trainer.storage import files

__all__ = ["GrownFile"]


class GrownFile:
    """A new file for a library that appends to a local one; elsewhere the file gets the same content.

    Attributes:
        local: the path to write: that of the file itself, or of a temporary one.
    """

    def __init__(self, path: PurePath) -> None:
        self._stack = contextlib.ExitStack()
        self.local = Path(path)
        self._has_copy = "://" in str(path)
        if self._has_copy:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self.local = Path(folder) / path.name
            self.local.touch()
            self._written = self._stack.enter_context(files.open_file(self.local))
            self._end = self._stack.enter_context(contextlib.closing(files.append(path)))

    def copy(self) -> None:
        """Appends to the file what the library has written since the last call.

        Raises:
            OSError: it cannot be written.
        """
        if self._has_copy:
            self._end.write(self._written.read())

    def close(self) -> None:
        """Ends the file; the library has closed the local one. May be called more than once."""
        self._has_copy = False
        self._stack.close()
