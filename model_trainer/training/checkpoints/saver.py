"""Saves checkpoints: copies the state between two steps, and writes it in a thread while training continues."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePath
from types import TracebackType
from typing import Self

from absl import logging

from model_trainer.errors import StorageError
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.training.checkpoints.store import Checkpoint, newest_complete, write_checkpoint

__all__ = ["Saver"]

MAX_TIME_FRACTION = 0.02  # maximum fraction of the time spent on saving, apart from the checkpoint after each epoch
FIRST_AFTER_SECONDS = 30.0
# A write to a full disk fails within milliseconds: MAX_TIME_FRACTION alone would allow a warning every second.
AFTER_FAILURE_SECONDS, MAX_PAUSE_SECONDS = 30.0, 600.0


class Saver:
    """Saves checkpoints to a folder.

    If one cannot be written, it logs a warning, and the last good checkpoint stays.

    Args:
        folder: of all checkpoints of a run.

    Attributes:
        failed: the error of the latest finished save; None if it succeeded, and before the first one.
    """

    def __init__(self, folder: PurePath) -> None:
        self.folder = folder
        self.failed: StorageError | None = None
        self._num_failures = 0  # in a row
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._next = time.monotonic() + FIRST_AFTER_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def save_when_due(self, capture: Callable[[], Checkpoint | None]) -> None:
        """Saves if enough time has passed for saving to stay within its fraction of the time."""
        if time.monotonic() >= self._next and (self._writing is None or self._writing.done()):
            self.save(capture)

    def save(self, capture: Callable[[], Checkpoint | None]) -> None:
        """Starts to save, after waiting for the previous save to finish.

        Args:
            capture: returns a copy of the state; None if there is nothing to save.
        """
        self.wait()
        started = time.monotonic()
        checkpoint = capture()
        if checkpoint is not None:
            self._writing = self._writer.submit(self._write, checkpoint, started)

    def wait(self) -> None:
        """Waits until the current save has finished or failed.

        Raises:
            LostLockError: another process has taken over the folder.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, checkpoint: Checkpoint, started: float) -> None:
        try:
            write_checkpoint(self.folder, checkpoint)
        except LostLockError:
            raise
        except StorageError as error:
            self.failed = StorageError(str(error))  # without the traceback, which holds the whole checkpoint
            self._num_failures += 1
            logging.warning("%s Until a checkpoint can be written, --resume would %s.", error, self._resume_point())
        else:
            self.failed = None
            self._num_failures = 0
        now = time.monotonic()
        self._next = now + max((now - started) / MAX_TIME_FRACTION, self._pause())

    def _resume_point(self) -> str:
        """Returns what `--resume` would do now, as a part of a warning."""
        try:
            last_good = newest_complete(self.folder)
        except StorageError:  # the store does not answer at all
            return "continue from the last one that was written"
        if last_good is None:
            return "start at the first step"
        return f"continue from the last good one, {last_good.name}"

    def _pause(self) -> float:
        """Seconds until the next attempt: twice as long after each failure in a row."""
        if not self._num_failures:
            return 0.0
        return min(AFTER_FAILURE_SECONDS * 2.0 ** min(self._num_failures - 1, 10), MAX_PAUSE_SECONDS)
