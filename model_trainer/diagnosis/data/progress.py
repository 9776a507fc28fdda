"""Progress of reading images: a bar on a terminal, one updating line in a notebook, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from model_trainer.display.notebook import CellLog, cell_log, text_bar
from model_trainer.training.progress import rate_text

__all__ = ["ReadingProgress"]

SECONDS_BETWEEN_UPDATES = 0.5  # of a line that changes
SECONDS_BETWEEN_LINES = 10.0


class ReadingProgress:
    """Progress of one pass over the images; pass its `update` to `examine` as `on_progress`.

    Args:
        console: writes to standard error.
        title: what is being done, such as "Reading".
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._started = self._printed = time.monotonic()
        self._block = contextlib.ExitStack()
        self._log: CellLog | None = None  # of a notebook's cell
        self._has_shown = False
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, transient=True)
            self._task = self._bar.add_task(title, total=None, rate="")

    def __enter__(self) -> ReadingProgress:
        if self._bar is not None:
            self._bar.start()
        else:
            self._log = self._block.enter_context(cell_log())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._log is not None:
            self._log.keep()  # an empty output would be left
        self._block.close()

    def update(self, done: int, total: int) -> None:
        """Shows that `done` of `total` images are read, the rate, and the remaining time.

        The clock starts at the call with `done=0`.
        """
        now = time.monotonic()
        if not done:
            self._started = now  # the time before was spent on listing the images
        rate = done / max(now - self._started, 1e-9)
        text = rate_text(rate, (total - done) / rate) if rate else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, rate=text)
        elif self._log is not None:
            is_due = now - self._printed >= SECONDS_BETWEEN_UPDATES
            if is_due or (done == total and self._has_shown):
                self._printed, self._has_shown = now, True
                self._log.show(f"{self._title}  {text_bar(done, total)}  {done:,}/{total:,}  {text}".rstrip())
        elif done < total and now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self._console.print(f"{self._title}  {done:,}/{total:,}  {text}", highlight=False, soft_wrap=True)
