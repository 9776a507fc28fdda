"""Starts training again when it was lost, and leaves it alone when it was told to stop."""

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

# Environment variable of the command: when the supervisor started, such as 20261121-120000.
STARTED = "MODEL_TRAINER_STARTED"

STOPPED_EARLY = 75  # what training ends with when it saved before it was done, or lost a machine
EXIT_LOST_HOST = 76  # what a supervised one ends with when it lost a machine, so that the two can be told apart
# Done, wrong input, diverged, told to stop here or elsewhere: another start would end the same, or is not wanted.
FINAL = frozenset({0, 2, 3, STOPPED_EARLY, 130})
# What asks to stop. The hang-up and Ctrl-\ of a terminal come here too, as the child is no longer in its group.
PASSED_ON = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)
MAX_PAUSE_SECONDS = 30.0


def supervise(command: Sequence[str], max_restarts: int, *, pause_seconds: float = 1.0) -> int:
    """Runs `command` to its end, and again with `--resume` when it was lost, killed or crashed.

    SIGINT, SIGTERM, SIGUSR1, SIGHUP and SIGQUIT are passed on to the running command, each once, and after one of them
    there is no further start. The command has the standard streams of this process but a process group of its own:
    Ctrl-C reaches a whole group, and a second one in the same moment would stop training without saving.

    Call it in the main thread of a POSIX system; signals can be caught nowhere else.

    Args:
        command: program and arguments; restarts append `--resume` unless they hold it, or `--resume-from`.
        max_restarts: how often to start it again at most.
        pause_seconds: before the first restart; doubles with each further one, up to 30 s.

    Returns:
        The command's last exit code, 128 + n when signal n killed it; 75 for `EXIT_LOST_HOST`, and
        when a signal came between two starts.
    """
    command = list(command)
    with _signals() as arrived:
        restarts = 0
        while True:
            code, told = _run(command, arrived)
            shown = STOPPED_EARLY if code == EXIT_LOST_HOST else 128 - code if code < 0 else code
            if told or code in FINAL:
                return shown
            if restarts == max_restarts:
                if max_restarts:
                    _say(f"Training ended with {shown} ({_reason(code)}); none of {max_restarts} restarts is left.")
                return shown
            pause = min(pause_seconds * 2**restarts, MAX_PAUSE_SECONDS)
            restarts += 1
            when = f" in {pause:g} s" * (pause > 0)
            _say(f"Training ended with {shown} ({_reason(code)}); restart {restarts} of {max_restarts}{when}.")
            if _told_within(pause, arrived):
                _say("Told to stop; no restart.")
                return STOPPED_EARLY
            if not any(part.partition("=")[0] in ("--resume", "--resume-from") for part in command):
                command.append("--resume")


def _run(command: Sequence[str], arrived: socket.socket) -> tuple[int, bool]:
    """The exit code, negative for a signal, and whether a signal asked to stop."""
    told = False
    sys.stdout.flush()
    process = subprocess.Popen(command, process_group=0)
    try:
        while process.poll() is None:
            for number in _next(arrived, math.inf):
                told = True
                process.send_signal(number)
        told = bool(_next(arrived, 0)) or told
    finally:
        if process.poll() is None:  # something went wrong here: nothing that was started stays behind
            process.kill()
            process.wait()
    return process.returncode, told


def _told_within(seconds: float, arrived: socket.socket) -> bool:
    """Waits for so long, or until a signal asks to stop; whether one did."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        if _next(arrived, remaining):
            return True
    return bool(_next(arrived, 0))


def _next(arrived: socket.socket, seconds: float) -> list[int]:
    """Signals to pass on that have come, after waiting for any signal, also the end of the child, for so long."""
    ready, _, _ = select.select([arrived], [], [], None if seconds == math.inf else seconds)
    return [number for number in arrived.recv(4096) if number in PASSED_ON] if ready else []


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket in which each signal appears as a byte with its number, once, whenever it came.

    What was ignored before, such as SIGHUP under nohup, stays ignored.
    """
    read, write = socket.socketpair()
    write.setblocking(False)
    with read, write:
        numbers = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
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
        return "a machine was lost"
    number = -code if code < 0 else code - 128  # a shell says it by 128 + n
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        return f"killed by {name}, often for want of memory" if name == "SIGKILL" else f"killed by {name}"
    return "an error, see above"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
