"""`serve`: binds the port, loads the model, and answers until a signal comes."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.serving.options import ServeOptions
from model_trainer.specs import ModelSpec
from model_trainer.training.signals import handled_signals

__all__ = ["BACKLOG", "Model", "announce_stop", "bind", "check_options", "end_process", "serve", "url_of"]

# Modules that are imported, and the packages that contain them.
NEEDED = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "httptools": "httptools",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
BACKLOG = 2048


@dataclass(frozen=True)
class Model:
    """What is served: the arguments of `load_model`."""

    path: str | os.PathLike[str]
    trust: bool = False
    spec: ModelSpec | str | None = None
    classes: tuple[str, ...] | None = None


def serve(
    path: str | os.PathLike[str],
    options: ServeOptions,
    *,
    trust: bool = False,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> int:
    """Serves a trained model over HTTP, until SIGTERM or Ctrl-C; then it answers the requests in progress and returns.

    It listens at once, and answers `GET /ping` with 503 until the model is loaded and warmed up.

    Args:
        path: of the model, as for `load_model`.
        options: of the endpoint.
        trust, spec, classes: as for `load_model`.

    Returns:
        The exit code of the process, 0.

    Raises:
        MissingExtra: the extra `serve` is not installed.
        ConfigError: the address is public and there is no token, or the port is in use.
        ModelTrainerError: the model cannot be loaded.
    """
    check_options(options)
    # Before there is a server to drain, SIGTERM ends the process with exit code 0; also as process 1 of a container,
    # which the signal does not end by default.
    ended_by_sigterm = handled_signals((signal.SIGTERM,), lambda number, frame: os._exit(0))
    with bind(options.host, options.port) as listener, ended_by_sigterm:
        model = Model(path, trust, spec, None if classes is None else tuple(classes))
        print(f"Loading {os.fspath(path)} and warming it up, which takes 10 to 30 s ...", file=sys.stderr)
        if options.num_workers > 1:
            from model_trainer.serving.workers import run_workers

            return run_workers(model, options, listener)
        from model_trainer.serving.worker import run_worker

        run_worker(model, options, listener)
    return 0


def check_options(options: ServeOptions) -> None:
    """Checks what can be checked before anything is loaded; raises as `serve`."""
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtra("HTTP endpoints", package, "serve") from None
    if options.token is None and not options.allows_anonymous and not options.is_loopback:
        raise ConfigError(
            f"is {options.host}, which other machines can reach, so clients need a token. Set --token, or the "
            "environment variable MODEL_TRAINER_TOKEN; or pass --no-token if anyone who can reach the port may send "
            "requests.",
            "--host",
        )


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address.

    Args:
        host: a name or an IP address.
        port: 0 takes any free one.

    Raises:
        ConfigError: the address is in use, or not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"is {host}, which is not an address of this machine: {error.strerror}.", "--host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # at once, because two processes can bind a port that neither listens on
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"is {port}, which another process uses at {host}. Stop that process, or choose another port; 0 takes "
                "a free one.",
                "--port",
            ) from None
        field, value = ("--port", port) if error.errno == errno.EACCES else ("--host", host)
        raise ConfigError(f"is {value}, where this process cannot listen: {error.strerror}.", field) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL at which this machine reaches the socket, such as "http://127.0.0.1:8080"."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce_stop() -> None:
    """Prints what the endpoint waits for before it stops; may be called in a signal handler."""
    with contextlib.suppress(OSError):  # standard error may be a closed pipe
        # Not `print`, which the signal may have interrupted.
        os.write(2, b"Stopping when the requests in progress are answered; Ctrl-C stops at once.\n")


def end_process(code: int) -> NoReturn:
    """Ends this process at once: TensorFlow's threads may still compute, which would crash a regular exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
