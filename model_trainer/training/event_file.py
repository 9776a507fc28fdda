"""A file of TensorBoard events, in any storage."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePath

import tensorflow as tf

from model_trainer.storage import files

__all__ = ["EventFile"]


class EventFile:
    """Appends events to a new file. TensorFlow writes a local one; for another storage, what it writes is copied.

    Every method raises OSError, or an error of TensorFlow, if the file cannot be written.
    """

    def __init__(self, path: PurePath) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        local = Path(path)
        if "://" in str(path):
            self._folder = tempfile.TemporaryDirectory(prefix="events-", ignore_cleanup_errors=True)
            local = Path(self._folder.name) / path.name
        self._writer = tf.io.TFRecordWriter(str(local))
        if self._folder is not None:
            self._written, self._end = files.open_file(local), files.append(path)

    def write(self, event: bytes) -> None:
        """Appends an event."""
        self._writer.write(event)
        self._writer.flush()
        if self._folder is not None:
            self._end.write(self._written.read())

    def close(self) -> None:
        """Closes the file, which is complete then; may be called more than once."""
        self._writer.close()
        if self._folder is not None:
            self._end.close()
            self._written.close()
            self._folder.cleanup()
