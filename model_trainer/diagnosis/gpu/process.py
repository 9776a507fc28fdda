"""Runs a command that prints JSON objects, one per line, and may crash or hang."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["run_answering"]


def run_answering(
    command: Sequence[str],
    on_answer: Callable[[Mapping[str, Any]], None],
    *,
    environment: Mapping[str, str],
    silence_seconds: float,
) -> tuple[str, str]:
    """Runs the command to its end and passes on each JSON object as it arrives.

    Args:
        command: program and arguments.
        on_answer: called with each JSON object of its standard output.
        environment: its environment variables.
        silence_seconds: the process is killed if it prints no line for this long.

    Returns:
        How the process failed, empty if it succeeded; and all that it wrote to standard error.
    """
    timed_out = threading.Event()
    with (
        tempfile.TemporaryFile(mode="w+", errors="replace") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=dict(environment), text=True) as process,
    ):

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = _start_timer(silence_seconds, kill)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                timer.cancel()
                timer = _start_timer(silence_seconds, kill)
                on_answer(json.loads(line))
            code = process.wait()
        finally:  # also after Ctrl-C, so that the process does not stay behind
            timer.cancel()
            process.kill()
        log.seek(0)
        text = log.read()
    if timed_out.is_set():
        return f"gave no answer for {silence_seconds:g} seconds", text
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}", text
    return (f"the process ended with code {code}" if code else ""), text


def _start_timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer
