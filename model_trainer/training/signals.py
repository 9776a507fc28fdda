"""Signals: the first asks to stop after the step in flight and save; a second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from absl import logging

from model_trainer.errors import StoppedError

__all__ = ["StopRequest", "end_on_signals", "stop_on_signals"]


class StopRequest:
    """Whether training was asked to stop, and by what."""

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Turns SIGTERM and SIGUSR1 into `StoppedError` inside the block: for the time before the first step.

    SIGINT stays Python's KeyboardInterrupt.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise StoppedError(f"{signal.Signals(number).name} came before the first step; there is nothing to save.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGUSR1, by which some schedulers warn, into a `StopRequest` inside the block.

    A second SIGINT raises KeyboardInterrupt. Outside the main thread signals cannot be caught; there the request
    stays empty.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            logging.warning("SIGINT again: stopping at once.")
            raise KeyboardInterrupt
        request.reason = signal.Signals(number).name
        logging.warning("%s: stopping after this step and saving. Press Ctrl-C again to stop at once.", request.reason)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
