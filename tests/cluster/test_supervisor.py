"""The supervisor restarts a run that was lost; with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cluster.supervisor import EXIT_LOST_HOST, STARTED, supervise
from model_trainer.errors import HostError


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes a program that appends its arguments to a file at each start; its n-th start ends with `endings[n - 1]`."""

    def make(*endings: str) -> list[str]:
        cases = "\n".join(f"{number}) {ending};;" for number, ending in enumerate(endings, start=1))
        script = f'echo "$@" >> {tmp_path}/starts\ncase $(wc -l < {tmp_path}/starts) in\n{cases}\n*) exit 99;; esac'
        return ["/bin/sh", "-c", script, "train", "run.py"]

    return make


@pytest.fixture
def starts(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "starts").read_text().splitlines()


def test_a_successful_run_is_not_restarted(
    command: Callable[..., list[str]], starts: Callable[[], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert supervise(command("exit 0"), 3, pause_seconds=0) == 0
    assert starts() == ["run.py"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("exit 76", "75 (a machine was lost, or an object store did not answer)"),
        ("exit 1", "1 (an error, see above)"),
        ("exit 134", "134 (killed by SIGABRT)"),
        ("kill -SEGV $$", "139 (killed by SIGSEGV)"),
        ("kill -KILL $$", "137 (killed by SIGKILL, often because memory ran out)"),
        ("kill -TERM $$", "143 (killed by SIGTERM)"),  # sent by another process, not through the supervisor
    ],
)
def test_a_lost_run_is_restarted_with_resume(
    command: Callable[..., list[str]],
    starts: Callable[[], list[str]],
    capfd: pytest.CaptureFixture[str],
    ending: str,
    reason: str,
) -> None:
    assert supervise(command(ending, "exit 0"), 3, pause_seconds=0) == 0
    assert starts() == ["run.py", "run.py --resume"]
    assert capfd.readouterr().err.splitlines()[-1] == f"Training ended with {reason}; restart 1 of 3."


@pytest.mark.parametrize("code", [2, 3, 130])
def test_a_failure_that_would_happen_again_is_final(
    command: Callable[..., list[str]], starts: Callable[[], list[str]], code: int
) -> None:
    assert supervise(command(f"exit {code}"), 3, pause_seconds=0) == code
    assert len(starts()) == 1


def test_a_run_that_stopped_cleanly_is_not_restarted(
    command: Callable[..., list[str]], starts: Callable[[], list[str]]
) -> None:
    assert supervise(command("exit 75"), 3, pause_seconds=0) == 75
    assert starts() == ["run.py"]


def test_the_number_of_restarts_is_limited(
    command: Callable[..., list[str]], starts: Callable[[], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert supervise(command("exit 76", "exit 1", "kill -KILL $$"), 2, pause_seconds=0) == 137
    assert starts() == ["run.py", "run.py --resume", "run.py --resume"]
    assert capfd.readouterr().err.splitlines()[-1].endswith("; none of 2 restarts is left.")


def test_without_restarts_the_exit_code_is_passed_on(command: Callable[..., list[str]]) -> None:
    assert supervise(command("kill -KILL $$"), 0, pause_seconds=0) == 137


@pytest.mark.parametrize("given", ["--resume", "--resume-from=output/cats"])
def test_a_command_that_already_resumes_is_unchanged(
    command: Callable[..., list[str]], starts: Callable[[], list[str]], given: str
) -> None:
    supervise([*command("exit 76", "exit 0"), given], 1, pause_seconds=0)
    assert starts() == [f"run.py {given}"] * 2


# The child tells the supervisor to stop, as a scheduler would, and waits for the signal itself.
WAITS = """
import os, signal, sys
number = signal.Signals[sys.argv[1]]
signal.pthread_sigmask(signal.SIG_BLOCK, [number])
os.kill(os.getppid(), number)
signal.sigwait([number])
assert not signal.sigtimedwait([number], 0)
print("got", number.name, flush=True)
sys.exit(75)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_is_passed_on_once_and_ends_the_supervisor(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.Signals[name])
    assert supervise([sys.executable, "-S", "-c", WAITS, name], 3, pause_seconds=0) == 75
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == (f"got {name}\n", "")
    assert signal.getsignal(signal.Signals[name]) is before


def test_a_run_that_dies_of_a_signal_that_was_passed_on_is_not_restarted(
    command: Callable[..., list[str]], starts: Callable[[], list[str]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "never")
    assert supervise(command(f"kill -TERM $PPID; read nothing < {tmp_path}/never"), 3, pause_seconds=0) == 143
    assert len(starts()) == 1


def test_the_run_has_its_own_process_group_so_that_ctrl_c_arrives_once(capfd: pytest.CaptureFixture[str]) -> None:
    supervise([sys.executable, "-S", "-c", "import os; print(os.getpgid(0) == os.getpid())"], 0)
    assert capfd.readouterr().out == "True\n"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a supervisor of its own process, with a pause that no test waits for."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        program = (
            "import sys; from model_trainer.cluster.supervisor import supervise; "
            "sys.exit(supervise(sys.argv[1:], 3, pause_seconds=30))"
        )
        process = subprocess.Popen([sys.executable, "-c", program, *command], stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_signal_during_the_pause_ends_the_supervisor_at_once(
    supervisor: Callable[..., subprocess.Popen[str]],
) -> None:
    process = supervisor("/bin/sh", "-c", "exit 1")
    assert process.stderr is not None
    assert process.stderr.readline() == "Training ended with 1 (an error, see above); restart 1 of 3 in 30 s.\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert process.stderr.readline() == "Stopped by a signal; no restart.\n"


def test_a_lost_host_has_its_own_exit_code_under_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose() -> None:
        raise HostError("gone")

    assert exit_code_of(lose) == 75
    monkeypatch.setenv(STARTED, "20261121-120000")
    assert exit_code_of(lose) == EXIT_LOST_HOST
