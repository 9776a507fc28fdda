"""Timed rounds in a process of its own: what `train.py` starts, and each contestant answers. Needs Python alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

__all__ = ["Contestant", "answer"]


def answer(train: Callable[[int], float]) -> None:
    """Says that this process is ready, then trains as often as it is asked to.

    Args:
        train: takes a number of steps, and gives the seconds that they took.
    """
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(train(int(line))), flush=True)


class Contestant:
    """A process that trains when it is asked to, and waits otherwise.

    Args:
        command: of the process.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._answers = self._read()
        if next(self._answers, None) != "ready":
            raise SystemExit(f"{' '.join(command)} failed:\n{self._process.communicate()[1][-3000:]}")

    def seconds(self, num_steps: int) -> float:
        """How long it takes for so many steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{num_steps}\n")
        self._process.stdin.flush()
        return float(next(self._answers))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Iterator[str | float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # a library says something
