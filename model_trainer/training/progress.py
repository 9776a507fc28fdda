"""Shows the progress of training: a bar on a terminal, a changing line in a notebook, otherwise a line now and then.

It is written to standard error, except in a notebook.
"""

from __future__ import annotations

import contextlib
import re
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from model_trainer.display.notebook import CellLog, cell_log, text_bar

__all__ = ["EpochProgress", "format_metrics", "format_seconds", "metric_line", "rate_text"]

SECONDS_BETWEEN_UPDATES = 0.5  # reading metrics waits for the device, so not every step
SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 24  # characters, on a terminal that is wide enough
TEXT_WIDTH = 80  # characters beside the bar, with two metrics


class EpochProgress:
    """Shows the progress of one epoch.

    Args:
        console: writes to standard error.
        title: such as "epoch 1/5".
        num_steps: number of steps of the epoch.
        first_step_note: text until the first step is done, such as "tracing the graph ...".
    """

    def __init__(
        self,
        console: Console,
        title: str,
        num_steps: int,
        first_step_note: str = "",
    ) -> None:
        self._console = console
        self._title = title
        self._first_step_note = first_step_note
        self._num_steps = num_steps
        self._started = self._updated = time.monotonic()
        self._images = 0
        self._first_images = 0
        self._since_first: float | None = None
        self._block = contextlib.ExitStack()
        self._log: CellLog | None = None  # of a notebook's cell
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=min(BAR_WIDTH, max(4, console.width - TEXT_WIDTH))),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                _Rate(first_step_note),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=num_steps, metrics="", rate=0.0, left=None)

    def __enter__(self) -> EpochProgress:
        if self._bar is not None:
            self._bar.start()
            return self
        self._log = None if self._console.quiet else self._block.enter_context(cell_log())
        if self._log is not None:
            self._log.show(f"{self._title}  {self._first_step_note}".rstrip())
        elif self._first_step_note:
            self._print(f"{self._title}  {self._first_step_note}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._log is not None:
            self._log.show("")
        self._block.close()

    def advance(self, num_images: int) -> bool:
        """Counts a step of `num_images`; returns True when it is time to `show` metrics."""
        now = time.monotonic()
        self._images += num_images
        if self._since_first is None:
            # The first step traces the graph; a rate that includes it would overestimate the remaining time.
            self._since_first, self._first_images = now, self._images
        changes_in_place = self._bar is not None or self._log is not None
        wait = SECONDS_BETWEEN_UPDATES if changes_in_place else SECONDS_BETWEEN_LINES
        if now - self._updated < wait:
            return False
        self._updated = now
        return True

    def show(self, steps_done: int, metrics: dict[str, float], images_left: float | None = None) -> None:
        """Shows metrics, images per second and, if `images_left` is known, the remaining time."""
        text = format_metrics(metrics)
        rate = self.images_per_second
        steps_left = self._num_steps - steps_done
        seconds_left = images_left / rate if rate and images_left is not None else None
        if self._bar is not None:
            self._bar.update(self._task, completed=steps_done, metrics=text, rate=rate, left=seconds_left)
            return
        if steps_left == 0:
            return  # the log line of the epoch follows
        position = f"{steps_done}/{self._num_steps}  {text}  {rate_text(rate, seconds_left)}"
        if self._log is not None:
            self._log.show(f"{self._title}  {text_bar(steps_done, self._num_steps)}  {position}")
            return
        self._print(f"{self._title}  {position}")

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed pipe, or a file on a full disk
            self._console.print(text, highlight=False, soft_wrap=True)

    @property
    def seconds_since_first(self) -> float:
        """Seconds that the steps after the first one took."""
        return 0.0 if self._since_first is None else time.monotonic() - self._since_first

    @property
    def images_per_second(self) -> float:
        """Images per second since the first step of this epoch, or including it while it is the only one."""
        now = time.monotonic()
        start = self._since_first if self._since_first is not None and self._images > self._first_images else None
        if start is None:
            return self._images / max(now - self._started, 1e-9)
        return (self._images - self._first_images) / max(now - start, 1e-9)


def format_metrics(metrics: dict[str, float]) -> str:
    """Returns the metrics in one line, such as "loss 1.8061  accuracy 0.3190"."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def metric_line(row: dict[str, float]) -> str:
    """Formats the metrics of an epoch for programs that collect logs, such as SageMaker.

    The regular expression ` val_accuracy=([0-9.eE+-]+);` matches a value, and only that one, because of the space.

    In a metric's name, characters that such programs may take for its end, such as a space, become "_".

    Args:
        row: "epoch" and its metrics, as in `history.csv`.

    Example:
        >>> metric_line({"epoch": 3.0, "loss": 0.4123456789, "val_accuracy": 0.91})
        '[metric] epoch=3 loss=0.412346; val_accuracy=0.91;'
    """
    metrics = {re.sub(r"[^\w.@/-]", "_", name): value for name, value in row.items() if name != "epoch"}
    values = " ".join(f"{name}={value:.6g};" for name, value in metrics.items())
    return f"[metric] epoch={row['epoch']:.0f} {values}"


def rate_text(rate: float, seconds_left: float | None) -> str:
    """Returns images per second and remaining time, such as "48 images/s  3:05 min left"."""
    text = f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s"
    return text if seconds_left is None else f"{text}  {format_seconds(seconds_left)} left"


def format_seconds(seconds: float) -> str:
    """Returns a duration such as "41 s", "3:05 min" or "2:07 h"."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60}:{rounded % 60:02d} min"
    return f"{rounded // 3600}:{rounded % 3600 // 60:02d} h"


class _Rate(ProgressColumn):
    def __init__(self, first_step_note: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._first_step_note = first_step_note

    def render(self, task: Task) -> Text:
        if not task.fields["rate"]:
            return Text(self._first_step_note, style="dim")
        return Text(rate_text(task.fields["rate"], task.fields["left"]), style="green")
