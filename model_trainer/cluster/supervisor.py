"""Restarts training after a crash or a lost machine, but not after a signal to stop."""

from __future__ import annotations

import contextlib
import math
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

__all__ = ["EXIT_LOST_HOST", "STARTED", "supervise"]

# Environment variable for the command: start time of the supervisor, such as 20261121-120000.
STARTED = "MODEL_TRAINER_STARTED"

STOPPED_EARLY = 75  # exit code of training that was stopped early and saved, or lost a machine
EXIT_LOST_HOST = 76  # exit code of supervised training that lost a machine, to distinguish the two
# Done, wrong input, diverged, stopped by a signal: a restart would end in the same way, or is not wanted.
FINAL = frozenset({0, 2, 3, STOPPED_EARLY, 130})
# Signals to stop. A terminal's hang-up and Ctrl-\ arrive here only, because the child has its own process group.
FORWARDED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)
MAX_PAUSE_SECONDS = 30.0


def supervise(command: Sequence[str], max_restarts: int, *, pause_seconds: float = 1.0) -> int:
    """Runs `command` to its end, and restarts it with `--resume` if it crashed, was killed, or lost a machine.

    SIGINT, SIGTERM, SIGUSR1, SIGHUP and SIGQUIT are forwarded to the running command, each once, and after one of them
    there is no restart. The command has the standard streams of this process but its own process group: Ctrl-C reaches
    a whole group, and a second one at the same moment would stop training without saving.

    Must be called in the main thread on a POSIX system, because signals can be caught there only.

    Args:
        command: program and arguments; restarts append `--resume` unless they contain it, or `--resume-from`.
        max_restarts: maximum number of restarts.
        pause_seconds: pause before the first restart; doubles with each further one, up to 30 s.

    Returns:
        The command's last exit code, or 128 + n if signal n killed it; 75 for `EXIT_LOST_HOST`, and if a signal
        arrived between two runs.
    """
    command = list(command)
    with _signals() as signals:
        restarts = 0
        while True:
            code, must_stop = _run(command, signals)
            exit_code = STOPPED_EARLY if code == EXIT_LOST_HOST else 128 - code if code < 0 else code
            if must_stop or code in FINAL:
                return exit_code
            reason = f"Training ended with {exit_code} ({_reason(code)})"
            if restarts == max_restarts:
                if max_restarts:
                    _print(f"{reason}; none of {max_restarts} restarts is left.")
                return exit_code
            pause = min(pause_seconds * 2**restarts, MAX_PAUSE_SECONDS)
            restarts += 1
            when = f" in {pause:g} s" * (pause > 0)
            _print(f"{reason}; restart {restarts} of {max_restarts}{when}.")
            if _is_stopped_within(pause, signals):
                _print("Stopped by a signal; no restart.")
                return STOPPED_EARLY
            if not any(argument.partition("=")[0] in ("--resume", "--resume-from") for argument in command):
                command.append("--resume")


def _run(command: Sequence[str], signals: socket.socket) -> tuple[int, bool]:
    """Runs the command; returns its exit code, negative for a signal, and whether a signal to stop arrived."""
    must_stop = False
    sys.stdout.flush()
    process = subprocess.Popen(command, process_group=0)
    try:
        while process.poll() is None:
            for number in _wait_for_signals(signals, math.inf):
                must_stop = True
                process.send_signal(number)
        must_stop = bool(_wait_for_signals(signals, 0)) or must_stop
    finally:
        if process.poll() is None:  # an error here must not leave the process behind
            process.kill()
            process.wait()
    return process.returncode, must_stop


def _is_stopped_within(seconds: float, signals: socket.socket) -> bool:
    """Waits; returns early with True when a signal to stop arrives."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        if _wait_for_signals(signals, remaining):
            return True
    return bool(_wait_for_signals(signals, 0))


def _wait_for_signals(signals: socket.socket, seconds: float) -> list[int]:
    """Waits for any signal, including the end of the child; returns those that are to be forwarded."""
    ready, _, _ = select.select([signals], [], [], None if seconds == math.inf else seconds)
    return [number for number in signals.recv(4096) if number in FORWARDED] if ready else []


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket from which each arriving signal can be read once, as a byte with its number.

    Signals that were ignored before, such as SIGHUP under nohup, stay ignored.
    """
    read, write = socket.socketpair()
    write.setblocking(False)
    with read, write:
        numbers = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, lambda *_: None) for number in (*numbers, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        try:
            yield read
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _reason(code: int) -> str:
    if code == EXIT_LOST_HOST:
        return "a machine was lost, or an object store did not answer"
    number = -code if code < 0 else code - 128  # a shell reports signal n as 128 + n
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        return f"killed by {name}, often because memory ran out" if name == "SIGKILL" else f"killed by {name}"
    return "an error, see above"


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
