"""Files of any storage, for libraries that can only append to local files."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path, PurePath

from model_trainer.storage import files

__all__ = ["GrowingFile"]


class GrowingFile:
    """A new file for a library that appends to a local one; `copy` transfers the content to another storage.

    Attributes:
        local: the path that the library writes: that of the file itself, or of a temporary one.
    """

    def __init__(self, path: PurePath) -> None:
        self._stack = contextlib.ExitStack()
        self.local = Path(path)
        self._has_copy = "://" in str(path)
        if self._has_copy:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self.local = Path(folder) / path.name
            self.local.touch()
            self._local_file = self._stack.enter_context(files.open_file(self.local))
            self._appender = self._stack.enter_context(contextlib.closing(files.append(path)))

    def copy(self) -> None:
        """Appends to the file what the library has written since the last call; does nothing for a local file.

        Raises:
            OSError: it cannot be written.
        """
        if self._has_copy:
            self._appender.write(self._local_file.read())

    def close(self) -> None:
        """Closes the file, after the library has closed the local one. May be called more than once."""
        self._has_copy = False
        self._stack.close()
