"""Messages: plain sentences on standard error or in the output of a notebook's cell, with time and level in a file."""

from __future__ import annotations

import contextlib
import logging as python_logging
import sys
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import PurePath
from types import TracebackType
from typing import Self

from absl import logging

from model_trainer.display.notebook import CellLog, cell_log
from model_trainer.storage.lines import LineFile

__all__ = ["LogFile", "plain_messages"]


class _ToStandardError(python_logging.Handler):
    """Looks standard error up at each message, so that a progress bar can take its place."""

    def emit(self, record: python_logging.LogRecord) -> None:
        # Nobody reads it any more, or it goes to a file on a full disk: no reason to end a training.
        with contextlib.suppress(OSError):
            sys.stderr.write(self.format(record) + "\n")  # in one piece: several processes may write there


class _ToNotebook(python_logging.Handler):
    """Red, as a notebook shows standard error, would alarm."""

    def __init__(self, log: CellLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: python_logging.LogRecord) -> None:
        self._log.write(self.format(record))


@contextlib.contextmanager
def plain_messages(label: str = "") -> Iterator[None]:
    """Inside the block messages from INFO on appear as plain sentences, without time, level or file.

    Args:
        label: stands before each, to tell processes apart.
    """
    logger = logging.get_absl_logger()
    before, propagate, verbosity = list(logger.handlers), logger.propagate, logging.get_verbosity()
    stack = contextlib.ExitStack()
    log = stack.enter_context(cell_log())
    handler = _ToStandardError() if log is None else _ToNotebook(log)
    handler.setLevel(python_logging.INFO)
    handler.setFormatter(python_logging.Formatter(f"{label.replace('%', '%%')}%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    root = python_logging.getLogger()
    root_handlers = list(root.handlers)
    root.handlers = [other for other in root_handlers if other is not logging.get_absl_handler()]
    logging.set_verbosity(logging.DEBUG)  # the log file has more than the terminal
    try:
        yield
    finally:
        stack.close()
        logger.handlers, logger.propagate, root.handlers = before, propagate, root_handlers
        logging.set_verbosity(verbosity)


class _ToLines(python_logging.Handler):
    """Quiet when the disk is full, where logging's own handler prints a traceback for each message."""

    def __init__(self, path: PurePath) -> None:
        super().__init__()
        self._lines = LineFile(path)

    def emit(self, record: python_logging.LogRecord) -> None:
        self._lines.write(self.format(record) + "\n")

    def close(self) -> None:
        self._lines.close()
        super().close()


class LogFile:
    """A file that gets every message of the block, also those from before its place was known."""

    def __init__(self) -> None:
        self._early = MemoryHandler(capacity=10_000, flushLevel=python_logging.CRITICAL + 1)
        self._file: _ToLines | None = None

    def __enter__(self) -> Self:
        logging.get_absl_logger().addHandler(self._early)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        logger = logging.get_absl_logger()
        logger.removeHandler(self._early)
        if self._file is not None:
            logger.removeHandler(self._file)
            self._file.close()

    def write_to(self, path: PurePath) -> None:
        """From now on messages go to `path`; what came before goes there first."""
        self._file = _ToLines(path)
        self._file.setFormatter(python_logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._early.setTarget(self._file)
        self._early.flush()
        logger = logging.get_absl_logger()
        logger.removeHandler(self._early)
        logger.addHandler(self._file)
