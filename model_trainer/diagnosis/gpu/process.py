"""Runs a command that answers with one JSON object per line, and survives whatever ends it."""

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
    """Runs the command to its end and hands over each answer as it comes.

    Args:
        command: program and arguments.
        on_answer: called with each JSON object of its standard output.
        environment: its environment variables.
        silence_seconds: when no line has come for so long, the process is ended.

    Returns:
        How it failed, in words, empty when it ended well; and all that it wrote to standard error.
    """
    late = threading.Event()
    with (
        tempfile.TemporaryFile(mode="w+", errors="replace") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=dict(environment), text=True) as process,
    ):

        def give_up() -> None:
            late.set()
            process.kill()

        timer = _started(silence_seconds, give_up)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                timer.cancel()
                timer = _started(silence_seconds, give_up)
                on_answer(json.loads(line))
            code = process.wait()
        finally:  # also after Ctrl-C: nothing that was started here stays behind
            timer.cancel()
            process.kill()
        log.seek(0)
        text = log.read()
    if late.is_set():
        return f"gave no answer for {silence_seconds:g} seconds", text
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}", text
    return (f"the process ended with code {code}" if code else ""), text


def _started(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer
