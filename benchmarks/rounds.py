"""Timed rounds in separate processes: `train.py` starts contestants, each of which calls `answer`. Pure Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import NoReturn

__all__ = ["Contestant", "answer", "spread"]

ANSWER = "\nANSWER "  # on a separate line, even after an unfinished line of a library


def answer(train: Callable[[int], float]) -> None:
    """Reports that this process is ready, then trains whenever it is asked to.

    Args:
        train: a function that trains a given number of steps and returns the seconds that they took.
    """
    print(f"{ANSWER}ready", flush=True)
    for line in sys.stdin:
        print(f"{ANSWER}{train(int(line))}", flush=True)


class Contestant:
    """A process that trains when it is asked to, and otherwise waits.

    Args:
        command: the command that starts the process.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._messages: deque[str] = deque(maxlen=50)  # the last lines that are not answers
        # One pipe for both streams: a second one that is not read would fill up and block the process.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._answers = self._read()
        if next(self._answers, None) != "ready":
            self._fail()

    def seconds(self, num_steps: int) -> float:
        """The seconds that the process takes for `num_steps` steps."""
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
                self._messages.append(line)  # a message of a library


def spread(values: list[float], digits: int) -> str:
    """The median and the range of the values as text."""
    return f"median {statistics.median(values):.{digits}f}, {min(values):.{digits}f} to {max(values):.{digits}f}"
