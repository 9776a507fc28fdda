"""Signals: the first one stops training after the current step, and saves; a second Ctrl-C stops immediately."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from absl import logging

from model_trainer.errors import StoppedError

__all__ = ["StopRequest", "end_on_signals", "handled_signals", "stop_on_signals"]

# Some schedulers send SIGUSR1 as a warning; Windows does not have it.
_STOPPING = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class StopRequest:
    """Whether training was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)


@contextlib.contextmanager
def handled_signals(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handles signals in the `with` block, and restores their handlers; outside the main thread it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Raises `StoppedError` on SIGTERM and SIGUSR1 in the `with` block, for the time before the first step.

    SIGINT still raises KeyboardInterrupt.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise StoppedError(f"{signal.Signals(number).name} came before the first step; there is nothing to save.")

    with handled_signals(_STOPPING, end):
        yield


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yields a `StopRequest` that is set by SIGINT, SIGTERM and SIGUSR1, which some schedulers send as a warning.

    A second SIGINT raises KeyboardInterrupt. Outside the main thread signals cannot be caught, and the request is never
    set.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            logging.warning("SIGINT again: stopping immediately.")
            raise KeyboardInterrupt
        request.reason = signal.Signals(number).name
        logging.warning(
            "%s: stopping after this step and saving. Press Ctrl-C again to stop immediately.", request.reason
        )

    with handled_signals((signal.SIGINT, *_STOPPING), ask):
        yield request
