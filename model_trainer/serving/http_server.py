"""uvicorn as the server of one process: its deadlines, its signals, and the model that it loads while it listens."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from model_trainer.serving.guards import CHECK_SECONDS, GuardedProtocol, guarded
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import BACKLOG, announce_stop
from model_trainer.serving.service import Service
from model_trainer.training.signals import handled_signals

__all__ = ["HttpServer", "run_server"]

TICKS_PER_CHECK = round(CHECK_SECONDS / 0.1)  # uvicorn ticks every 0.1 seconds
INTERRUPTED = 130


class HttpServer(uvicorn.Server):
    """A uvicorn server that cuts off slow clients, and exits regularly after a signal.

    uvicorn itself raises the signal again after its shutdown, which would kill the process.
    """

    def __init__(self, app: Any, service: Service, options: ServeOptions) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=guarded(options),
                ws="none",
                lifespan="auto",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                # The deadlines of `GuardedProtocol` apply; this one ends at the first byte of the next request.
                timeout_keep_alive=max(1, round(options.idle_seconds)),
                timeout_graceful_shutdown=max(1, round(options.drain_seconds)),
            )
        )
        self._service = service
        self._options = options

    async def on_tick(self, counter: int) -> bool:
        """Checks the deadlines of all connections every `CHECK_SECONDS`."""
        if counter % TICKS_PER_CHECK == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, GuardedProtocol)
                connection.check(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT in the `with` block, and restores the handlers, without raising them again."""
        with handled_signals((signal.SIGINT, signal.SIGTERM), self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops after the requests in progress; Ctrl-C after a first signal ends the process at once."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(INTERRUPTED)
        if not self.should_exit and self._options.num_workers == 1:  # else the parent process says so
            announce_stop()
        self.should_exit = True
        self._service.stop()


def run_server(
    service: Service,
    app: Any,
    options: ServeOptions,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Answers requests until a signal comes; loads the model in a thread if it is not loaded yet.

    Args:
        service: what the application calls.
        app: the ASGI application.
        options: of the endpoint.
        listener: a listening socket; it is closed at the end.
        on_ready: called when the model is loaded.

    Raises:
        ModelTrainerError: the model cannot be loaded.
    """
    _log_errors_only()
    server = HttpServer(app, service, options)
    failures: list[BaseException] = []

    def load() -> None:
        try:
            service.load()
            on_ready()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the main thread
            failures.append(error)
            server.should_exit = True

    loading = threading.Thread(target=load, name="load", daemon=True)
    if service.trained is None:
        loading.start()
    else:
        on_ready()
    try:
        server.run([listener])
    finally:
        service.close()
    if failures:
        raise failures[0]


def _log_errors_only() -> None:
    """uvicorn reports errors of the application on standard error, and nothing else."""
    logger = python_logging.getLogger("uvicorn.error")
    logger.setLevel(python_logging.ERROR)
    logger.handlers, logger.propagate = [python_logging.StreamHandler()], False
