"""Progress of `model-trainer sync`: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from model_trainer.storage.write_errors import size_text
from model_trainer.training.progress import format_seconds

if TYPE_CHECKING:
    from model_trainer.storage.sync.sync import Synchronization

__all__ = ["SyncProgress"]

SECONDS_BETWEEN_LINES = 10.0
RATE_SECONDS = 15.0  # over which the rate is averaged


class SyncProgress:
    """Shows how much has been copied, the rate and the time left; pass its `update` as `on_progress`.

    Args:
        console: writes to standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = time.monotonic()
        self._moved: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("Listing", total=None, text="")

    def __enter__(self) -> SyncProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, sync: Synchronization) -> None:
        """Shows the state of a synchronization."""
        now = time.monotonic()
        self._moved.append((now, sync.num_moved))
        while len(self._moved) > 2 and self._moved[1][0] < now - RATE_SECONDS:
            self._moved.popleft()
        name = "Copying" if sync.is_listed or sync.num_files else "Listing"
        if self._bar is not None:
            total = sync.num_bytes if sync.is_listed else None
            self._bar.update(self._task, description=name, completed=sync.num_moved, total=total, text=self._text(sync))
        elif now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self._console.print(f"{name}  {self._text(sync)}", highlight=False, soft_wrap=True)

    def _text(self, sync: Synchronization) -> str:
        """Such as "1,200/5,000 files  12 MB/50 MB  4.1 MB/s  9 s left"."""
        more = "" if sync.is_listed else "+"
        parts = [
            f"{sync.num_copied:,}/{sync.num_files:,}{more} files",
            f"{size_text(sync.num_moved)}/{size_text(sync.num_bytes)}{more}",
        ]
        (first, before), (last, moved) = self._moved[0], self._moved[-1]
        rate = (moved - before) / max(last - first, 1e-9)
        if rate:
            parts.append(f"{size_text(rate)}/s")
            if sync.is_listed:
                parts.append(f"{format_seconds(max(0, sync.num_bytes - moved) / rate)} left")
        return "  ".join(parts)
