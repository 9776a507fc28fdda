"""Log messages: plain sentences on standard error or in a notebook cell, with time and level in log files."""

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
from model_trainer.errors import ModelTrainerError
from model_trainer.storage.lines import LineFile

__all__ = ["LogFile", "plain_messages"]


class _StderrHandler(python_logging.Handler):
    """Looks up `sys.stderr` for each message, because a progress bar replaces it."""

    def emit(self, record: python_logging.LogRecord) -> None:
        # A closed pipe, or a file on a full disk, should not end training.
        with contextlib.suppress(OSError):
            sys.stderr.write(self.format(record) + "\n")  # one write, because several processes may write there


class _NotebookHandler(python_logging.Handler):
    """Writes to the output of the cell, because a notebook shows standard error in red."""

    def __init__(self, log: CellLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: python_logging.LogRecord) -> None:
        self._log.write(self.format(record))


@contextlib.contextmanager
def plain_messages(label: str = "") -> Iterator[None]:
    """Prints messages of level INFO and above as plain sentences, without time, level or file, in the `with` block.

    Args:
        label: prefix of each message, to distinguish processes.
    """
    logger = logging.get_absl_logger()
    handlers, propagate, verbosity = list(logger.handlers), logger.propagate, logging.get_verbosity()
    stack = contextlib.ExitStack()
    log = stack.enter_context(cell_log())
    handler = _StderrHandler() if log is None else _NotebookHandler(log)
    handler.setLevel(python_logging.INFO)
    handler.setFormatter(python_logging.Formatter(f"{label.replace('%', '%%')}%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    root = python_logging.getLogger()
    root_handlers = list(root.handlers)
    root.handlers = [root_handler for root_handler in root_handlers if root_handler is not logging.get_absl_handler()]
    logging.set_verbosity(logging.DEBUG)  # the log file has more than the terminal
    try:
        yield
    finally:
        stack.close()
        logger.handlers, logger.propagate, root.handlers = handlers, propagate, root_handlers
        logging.set_verbosity(verbosity)


class _FileHandler(python_logging.Handler):
    """Writes to a file and ignores a full disk; `logging.FileHandler` would print a traceback for each message."""

    def __init__(self, path: PurePath) -> None:
        super().__init__()
        self._lines = LineFile(path)

    def emit(self, record: python_logging.LogRecord) -> None:
        self._lines.write(self.format(record) + "\n")

    def close(self) -> None:
        self._lines.close()
        super().close()


class LogFile:
    """A log file with every message of the `with` block, including those before `write_to` sets its path.

    An error that ends the block is its last message.
    """

    def __init__(self) -> None:
        self._early = MemoryHandler(capacity=10_000, flushLevel=python_logging.CRITICAL + 1)
        self._file: _FileHandler | None = None

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
            if isinstance(value, Exception):  # the code that catches it shows it elsewhere
                self._file.handle(logger.makeRecord("absl", python_logging.ERROR, "", 0, _text_of(value), (), None))
            self._file.close()

    def write_to(self, path: PurePath) -> None:
        """Writes the messages so far, and all later ones, to `path`."""
        self._file = _FileHandler(path)
        self._file.setFormatter(python_logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._early.setTarget(self._file)
        self._early.flush()
        logger = logging.get_absl_logger()
        logger.removeHandler(self._early)
        logger.addHandler(self._file)


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, ModelTrainerError) else f"{type(error).__name__}: {error}"
