"""Timed rounds in a process of its own: what `train.py` starts, and each contestant answers. Needs Python alone."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import NoReturn

__all__ = ["Contestant", "answer", "spread"]

ANSWER = "\nANSWER "  # on a line of its own, also after what a library left unfinished


def answer(train: Callable[[int], float]) -> None:
    """Says that this process is ready, then trains as often as it is asked to.

    Args:
        train: takes a number of steps, and gives the seconds that they took.
    """
    print(f"{ANSWER}ready", flush=True)
    for line in sys.stdin:
        print(f"{ANSWER}{train(int(line))}", flush=True)


class Contestant:
    """A process that trains when it is asked to, and waits otherwise.

    Args:
        command: of the process.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._messages: deque[str] = deque(maxlen=50)  # the last lines that are no answers
        # One pipe for both: one that nobody reads would fill, and stop who writes.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._answers = self._read()
        if next(self._answers, None) != "ready":
            self._fail()

    def seconds(self, num_steps: int) -> float:
        """How long it takes for so many steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{num_steps}\n")
        self._process.stdin.flush()
        answer = next(self._answers, None)
        return self._fail() if answer is None else float(answer)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _fail(self) -> NoReturn:
        raise SystemExit(f"{' '.join(self._command)} failed:\n{''.join(self._messages)}")

    def _read(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER.lstrip()):
                yield line.removeprefix(ANSWER.lstrip()).strip()
            else:
                self._messages.append(line)  # a library says something


def spread(values: list[float], digits: int) -> str:
    """Median, lowest and highest."""
    return f"median {statistics.median(values):.{digits}f}, {min(values):.{digits}f} to {max(values):.{digits}f}"
