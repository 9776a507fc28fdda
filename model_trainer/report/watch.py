"""Serves the report of a run on this machine while it trains; the open page updates itself.

Only this machine can connect, by its loopback address. A request must name that address as its host, so that a web page
whose name resolves to it (DNS rebinding) reads nothing. There are two answers, the page and its version; no path leads
to a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.report.report import render_report
from model_trainer.report.run_files import read_run
from model_trainer.storage import files

__all__ = ["serving", "watch_report"]

ADDRESS = "127.0.0.1"
# Files that change during training or at its end.
WATCHED = (
    "history.csv", "logs/metrics.jsonl", "training_options.json", "bad_images.csv", "final_model.hdf5", "findings.json",
    "evaluation/evaluation.json", "report/data.json",
)  # fmt: skip


def watch_report(output_dir: files.StrPath, port: int = 0, announce: Callable[[str], Any] = print) -> None:
    """Serves the report of an output folder until Ctrl-C.

    Args:
        output_dir: output folder of a run, which may be training.
        port: 0 takes a free one.
        announce: is called with the address of the page.

    Raises:
        DataError: the folder is not that of a run, or one of its files is damaged.
        ConfigError: the port is taken.
    """
    with serving(output_dir, port) as server, contextlib.suppress(KeyboardInterrupt):
        announce(f"http://{ADDRESS}:{server.server_port}/")
        server.serve_forever()


@contextlib.contextmanager
def serving(output_dir: files.StrPath, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """Yields a server for the report, bound to its port; it answers while its `serve_forever` runs."""
    report = _LiveReport(output_dir)
    try:
        server = ThreadingHTTPServer((ADDRESS, port), type("Handler", (_Handler,), {"report": report}))
    except OSError as error:
        raise ConfigError(
            f"{port} cannot be used: {error.strerror}. Leave it out to take a free one.", "--port"
        ) from None
    server.daemon_threads = True
    with server:
        yield server


class _LiveReport:
    """The page of a run, rendered again when a file has changed."""

    def __init__(self, output_dir: files.StrPath) -> None:
        self._path = files.as_path(output_dir)
        self._lock = threading.Lock()
        self._version, self._problem = self.version(), ""
        self._run = read_run(self._path)
        self._page = render_report(self._run, version=self._version)

    def version(self) -> str:
        """A text that differs when a file has changed."""
        state = hashlib.sha256()
        for name in WATCHED:
            with contextlib.suppress(OSError):
                state.update(f"{name} {files.info(self._path / name)}\n".encode())
        return state.hexdigest()[:16]

    def page(self) -> str:
        """The current page; while files are damaged, the last valid page with a note about them."""
        with self._lock:
            version = self.version()
            if version != self._version or self._problem:
                self._version, self._problem = version, ""
                try:
                    run = read_run(self._path)
                    self._page = render_report(run, version=version)
                    self._run = run
                except ModelTrainerError as error:
                    self._problem = f"This page is out of date: {error}"
                    self._page = render_report(self._run, version=version, problem=self._problem)
            return self._page


class _Handler(BaseHTTPRequestHandler):
    report: _LiveReport
    timeout = 10  # seconds without data from a browser
    server_version = "ModelTrainer"
    sys_version = ""

    def do_GET(self) -> None:
        port = cast(ThreadingHTTPServer, self.server).server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.FORBIDDEN, "This address is not the page's.", "text/plain")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, self.report.page(), "text/html")
        elif self.path == "/version":
            self._answer(HTTPStatus.OK, self.report.version(), "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "There is only one page: /", "text/plain")

    def _answer(self, status: HTTPStatus, text: str, kind: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the browser has closed the connection
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged: the page asks every two seconds."""
