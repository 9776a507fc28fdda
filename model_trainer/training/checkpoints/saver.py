"""When checkpoints are saved, and by whom: copied between two steps, written by a thread while training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from absl import logging

from model_trainer.errors import StorageError
from model_trainer.training.checkpoints.store import Checkpoint, checkpoints_in, write_checkpoint

__all__ = ["Saver"]

SHARE_OF_TIME = 0.02  # that saving may take, but for the checkpoint at the end of each epoch
FIRST_AFTER_SECONDS = 30.0


class Saver:
    """Saves checkpoints into a folder.

    What cannot be written is said in the log, and the checkpoints before stay; training goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._next = time.monotonic() + FIRST_AFTER_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()

    def save_when_due(self, capture: Callable[[], Checkpoint | None]) -> None:
        """Saves if the last one is so long ago that the share of time allows it."""
        if time.monotonic() >= self._next and not (self._thread and self._thread.is_alive()):
            self.save(capture)

    def save(self, capture: Callable[[], Checkpoint | None]) -> None:
        """Saves in any case; waits for the one before, not for this one."""
        self.wait()
        started = time.monotonic()
        checkpoint = capture()
        if checkpoint is None:
            return
        self._next = float("inf")  # until it is known how long this one takes
        self._thread = threading.Thread(target=self._write, args=(checkpoint, started), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when what was to be saved lies on the disk, or could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, checkpoint: Checkpoint, started: float) -> None:
        try:
            write_checkpoint(self.folder, checkpoint)
        except StorageError as error:
            kept = checkpoints_in(self.folder)
            last = f"the last good one is {kept[-1].name}" if kept else "there is none yet"
            logging.warning("%s Training goes on; %s.", error, last)
        now = time.monotonic()
        self._next = now + (now - started) / SHARE_OF_TIME
