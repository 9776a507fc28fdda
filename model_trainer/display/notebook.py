"""Messages and progress in a Jupyter notebook: one output of the cell, whose last line changes.

A notebook keeps all that a cell prints, also what a carriage return would overwrite, and shows standard error in red.
So messages and progress are one output with an id, which is replaced as they come: the file holds its last state.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["CellLog", "cell_log", "in_notebook", "text_bar"]

MOST_LINES = 200  # each update sends them all
BAR_WIDTH = 20


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code: JupyterLab, Colab, an editor's notebook, nbclient."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class CellLog:
    """Lines in one output of the running cell, and below them one line that changes. Any thread may write."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._num_lines = 0
        self._last = ""
        self._handle: Any = None
        self._lock = threading.RLock()

    def write(self, text: str) -> None:
        """Adds lines that stay, above the one that changes."""
        with self._lock:
            lines = text.splitlines()
            self._num_lines += len(lines)
            self._lines = [*self._lines, *lines][-MOST_LINES:]
            self._update()

    def show(self, text: str) -> None:
        """Replaces the line that changes; the empty string takes it away."""
        with self._lock:
            if text != self._last:
                self._last = text
                self._update()

    def keep(self) -> None:
        """Lets the line that changes stay as it is now; what comes goes below it."""
        with self._lock:
            if self._last:
                self._lines, self._num_lines, self._last = [*self._lines, self._last], self._num_lines + 1, ""

    def _update(self) -> None:
        from IPython.display import display

        earlier = self._num_lines - len(self._lines)
        lines = [f"({earlier:,} earlier lines)"] * bool(earlier) + self._lines + [self._last] * bool(self._last)
        output = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            self._handle = display(output, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(output, raw=True)


_open: CellLog | None = None


@contextlib.contextmanager
def cell_log() -> Iterator[CellLog | None]:
    """The log of the block, one output of the cell; None outside of a notebook.

    Inside of another such block it is that one's, so that messages and progress of one training stand together.
    """
    global _open
    if _open is not None or not in_notebook():
        yield _open
        return
    _open = CellLog()
    try:
        yield _open
    finally:
        _open = None


def text_bar(done: int, total: int) -> str:
    """Such as "█████░░░░░░░░░░░░░░░"."""
    filled = round(BAR_WIDTH * min(done, total) / max(total, 1))
    return "█" * filled + "░" * (BAR_WIDTH - filled)
