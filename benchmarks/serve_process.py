"""A server in its own session, so that CPU time and memory of all its processes can be measured."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["ServerProcess"]

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 240


class ServerProcess:
    """Starts a server and waits until it answers.

    Args:
        name: name of the server in messages.
        command: command that starts the process; the port is appended.
        path: path of the route for images.
        variables: environment variables in addition to those of this process.
        photo: an image for which the server has to answer with 200 before it counts as started.
    """

    def __init__(self, name: str, command: list[str], path: str, variables: dict[str, str], photo: Path) -> None:
        self.name, self.path, self.port = name, path, _free_port()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close(); an unread pipe would fill up
        self._process = subprocess.Popen(
            [*command, str(self.port)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "ignore", **variables},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # the session id identifies all processes that the server starts
        )
        try:
            self._wait(photo.read_bytes())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.resume()
        pids = self._pids()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def pause(self) -> None:
        """Suspends its processes, some of which poll for work (LitServe's: a fifth of a core)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resumes its processes."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def cpu_seconds(self) -> float:
        """CPU time used so far by the processes that run now."""
        return sum(int(fields[11]) + int(fields[12]) for fields in map(_stat, self._pids()) if fields) / TICKS

    def memory_bytes(self) -> int:
        """Memory of all processes; pages that several of them share count once."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total

    def _pids(self) -> list[int]:
        numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [pid for pid in numbers if (fields := _stat(pid)) and int(fields[3]) == self._process.pid]

    def _wait(self, photo: bytes) -> None:
        end, answer = time.monotonic() + START_SECONDS, "nothing"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", self.path, photo, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                answer = f"{response.status} {response.read()[:500].decode(errors='replace')}"
                connection.close()
                if response.status == 200:
                    return
            except OSError as error:
                answer = repr(error)
            time.sleep(0.5)
        self._log.seek(0)
        raise SystemExit(f"{self.name} did not start; its last answer: {answer}\n{self._log.read()[-3000:]}")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, process group, session, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: Any = listener.getsockname()[1]
        return int(port)
