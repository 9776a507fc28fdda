"""When checkpoints are saved, and by whom: copied between two steps, written by a thread while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePath
from types import TracebackType
from typing import Self

from absl import logging

from model_trainer.errors import StorageError
from model_trainer.training.checkpoints.store import Checkpoint, newest_complete, write_checkpoint

__all__ = ["Saver"]

MAX_TIME_FRACTION = 0.02  # that saving may take, but for the checkpoint at the end of each epoch
FIRST_AFTER_SECONDS = 30.0
# A full disk is noticed within milliseconds, so its share of time would let a warning come every second.
AFTER_FAILURE_SECONDS, MAX_PAUSE_SECONDS = 30.0, 600.0


class Saver:
    """Saves checkpoints into a folder.

    What cannot be written is said in the log, and the last good one stays.

    Attributes:
        failed: why the newest save that has ended could not be written; None where it was, and before the first.
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
        """Saves if the last one is so long ago that the share of time allows it."""
        if time.monotonic() >= self._next and (self._writing is None or self._writing.done()):
            self.save(capture)

    def save(self, capture: Callable[[], Checkpoint | None]) -> None:
        """Saves in any case; waits for the one before, not for this one."""
        self.wait()
        started = time.monotonic()
        checkpoint = capture()
        if checkpoint is not None:
            self._writing = self._writer.submit(self._write, checkpoint, started)

    def wait(self) -> None:
        """Returns when what was to be saved lies on the disk, or could not be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, checkpoint: Checkpoint, started: float) -> None:
        try:
            write_checkpoint(self.folder, checkpoint)
        except StorageError as error:
            self.failed = StorageError(str(error))  # without the traceback, which holds the whole checkpoint
            self._num_failures += 1
            last = newest_complete(self.folder)
            start = "begin at the first step" if last is None else f"go on from the last good one, {last.name}"
            logging.warning("%s Until one can be, --resume would %s.", error, start)
        else:
            self.failed = None
            self._num_failures = 0
        now = time.monotonic()
        self._next = now + max((now - started) / MAX_TIME_FRACTION, self._pause())

    def _pause(self) -> float:
        """Seconds until another attempt makes sense: twice as long after each failure in a row."""
        if not self._num_failures:
            return 0.0
        return min(AFTER_FAILURE_SECONDS * 2.0 ** min(self._num_failures - 1, 10), MAX_PAUSE_SECONDS)
