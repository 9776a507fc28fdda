"""Shows messages and progress in a Jupyter notebook as one output of the cell, whose last line changes.

A notebook keeps everything that a cell prints, even what a carriage return overwrites, and shows standard error in red.
So messages and progress are one output with an id, which is updated in place; the file holds its last state.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from model_trainer.messages import shown

__all__ = ["CellLog", "cell_log", "in_notebook", "text_bar"]

MAX_LINES = 200  # because each update sends all of them
BAR_WIDTH = 20


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code: JupyterLab, Colab, an editor's notebook, nbclient."""
    ipython = sys.modules.get("IPython")  # every kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class CellLog:
    """An output of the running cell: lines, and below them a status line that changes. Thread-safe."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._num_lines = 0
        self._status = ""
        self._handle: Any = None
        self._lock = threading.RLock()

    def write(self, text: str) -> None:
        """Appends lines above the status line."""
        with self._lock:
            # A file name may contain escape sequences.
            lines = [shown(line) for line in text.removesuffix("\n").split("\n")]
            self._num_lines += len(lines)
            self._lines = [*self._lines, *lines][-MAX_LINES:]
            self._update()

    def show(self, text: str) -> None:
        """Replaces the status line; an empty string removes it."""
        with self._lock:
            if text != self._status:
                self._status = text
                self._update()

    def keep(self) -> None:
        """Keeps the status line as a permanent line; later lines are appended below it."""
        with self._lock:
            if self._status:
                self._lines, self._num_lines, self._status = [*self._lines, self._status], self._num_lines + 1, ""

    def _update(self) -> None:
        from IPython.display import display

        earlier = self._num_lines - len(self._lines)
        lines = [f"({earlier:,} earlier lines)"] * bool(earlier) + self._lines + [self._status] * bool(self._status)
        output = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            self._handle = display(output, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(output, raw=True)


_current_log: CellLog | None = None


@contextlib.contextmanager
def cell_log() -> Iterator[CellLog | None]:
    """The log of the `with` block, one output of the cell; None outside of a notebook.

    Nested blocks share one log, so that the messages and the progress of one training are together.
    """
    global _current_log
    if _current_log is not None or not in_notebook():
        yield _current_log
        return
    _current_log = CellLog()
    try:
        yield _current_log
    finally:
        _current_log = None


def text_bar(done: int, total: int) -> str:
    """A progress bar of `BAR_WIDTH` characters, such as "█████░░░░░░░░░░░░░░░"."""
    filled = round(BAR_WIDTH * min(done, total) / max(total, 1))
    return "█" * filled + "░" * (BAR_WIDTH - filled)
