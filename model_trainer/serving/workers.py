"""`--workers`: several processes that accept connections on one socket, and a parent that replaces those that die.

The first worker accepts connections while it loads, and answers that it is not ready. The other workers load when it
is ready, and accept connections only when they have loaded, so that after the first "ready" no client reaches a worker
that is not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from absl import logging

from model_trainer.cpu_cores import num_usable_cores
from model_trainer.diagnosis.gpu.nvml import query_nvml
from model_trainer.errors import DeviceError, ModelTrainerError
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import Model, announce_stop, end_process, url_of
from model_trainer.training.log import plain_messages
from model_trainer.training.signals import handled_signals

__all__ = ["run_workers"]

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
GRACE_SECONDS = 3.0  # after `drain_seconds`, before a worker is killed
RETRY_SECONDS = 1.0, 30.0  # before a worker that died is restarted: at first, and at most
MAX_STARTS = 3  # of the first worker

_SPAWN = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork


@dataclass
class _Worker:
    """A process, its end of the pipe, and whether its model is loaded."""

    number: int
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False


@dataclass
class _Group:
    """The workers of an endpoint."""

    model: Model
    options: ServeOptions
    listener: socket.socket
    gpus: tuple[str, ...]
    workers: dict[int, _Worker] = field(default_factory=dict)
    start_times: dict[int, float] = field(default_factory=dict)  # earliest time to restart a worker that died
    num_deaths: int = 0  # since a worker became ready
    was_ready: bool = False
    is_stopping: bool = False

    @property
    def is_ready(self) -> bool:
        return any(worker.is_ready for worker in self.workers.values())


def run_workers(model: Model, options: ServeOptions, listener: socket.socket) -> int:
    """Runs `num_workers` processes until a signal comes.

    Args:
        model: what is served.
        options: of the endpoint.
        listener: a listening socket.

    Returns:
        The exit code, 0.

    Raises:
        ModelTrainerError: no worker can load the model.
    """
    folder = tempfile.mkdtemp(prefix="model-trainer-metrics-")
    try:
        # prometheus_client reads it when it is imported, in each worker.
        with _environment({METRICS_FOLDER: folder}), plain_messages():
            _supervise(_Group(model, options, listener, _visible_gpus()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _supervise(group: _Group) -> None:
    reader, writer = _SPAWN.Pipe(duplex=False)

    def stop(number: int, frame: FrameType | None) -> None:
        if group.is_stopping and number == signal.SIGINT:
            raise KeyboardInterrupt  # kills the workers and removes their files on its way out
        group.is_stopping = True
        writer.send_bytes(b"")  # wakes `wait`

    with handled_signals((signal.SIGINT, signal.SIGTERM), stop):
        try:
            while not group.is_stopping:
                _start_missing(group)
                _wait_for_news(group, reader)
            _drain(group)
        finally:
            _kill(group)


def _start_missing(group: _Group) -> None:
    """Starts the first worker, and the others when one is ready."""
    count = group.options.num_workers if group.is_ready else 1
    for number in range(group.options.num_workers):
        is_due = time.monotonic() >= group.start_times.get(number, 0.0)
        if len(group.workers) < count and number not in group.workers and is_due:
            group.workers[number] = _start(group, number)


def _start(group: _Group, number: int) -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(
        target=_run,
        args=(group.model, group.options, group.listener, theirs, group.is_ready),
        name=f"worker-{number}",
    )
    with _environment(_variables(group, number)):  # TensorFlow looks for GPUs while it is imported
        process.start()
    theirs.close()
    return _Worker(number, process, ours)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables in the `with` block."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _variables(group: _Group, number: int) -> dict[str, str]:
    """Environment variables of a worker: a GPU of its own, or its fraction of the CPU cores."""
    if group.gpus:
        return {"CUDA_VISIBLE_DEVICES": group.gpus[number % len(group.gpus)]}
    num_threads = max(1, num_usable_cores() // group.options.num_workers)
    return {} if "TF_NUM_INTRAOP_THREADS" in os.environ else {"TF_NUM_INTRAOP_THREADS": str(num_threads)}


def _wait_for_news(group: _Group, signals: Connection) -> None:
    """Waits until a worker is ready or has ended, a signal comes, or a worker may be restarted."""
    pipes = {worker.pipe: worker for worker in group.workers.values()}
    due = [start_time - time.monotonic() for start_time in group.start_times.values()]
    timeout = max(0.0, min(due)) if due else None
    for event in wait([*pipes, signals], timeout):
        if event is signals:
            signals.recv_bytes()
            continue
        worker = pipes[event]  # type: ignore[index]
        try:
            news = worker.pipe.recv()
        except (EOFError, OSError):
            _remove_ended(group, worker, None)
            continue
        if isinstance(news, ModelTrainerError):
            _remove_ended(group, worker, news)
        else:
            worker.is_ready = group.was_ready = True
            group.num_deaths = 0
            print(f"Worker {worker.number} is ready (process {worker.process.pid}).", file=sys.stderr, flush=True)
    for number in [number for number, start_time in group.start_times.items() if start_time <= time.monotonic()]:
        del group.start_times[number]


def _remove_ended(group: _Group, worker: _Worker, error: ModelTrainerError | None) -> None:
    """Removes a worker that has ended; it is restarted, unless no worker can load the model."""
    from prometheus_client.multiprocess import mark_process_dead

    worker.process.join()
    worker.pipe.close()
    del group.workers[worker.number]
    mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
    if group.is_stopping:
        return
    if error is not None and not group.is_ready:
        raise error
    if not group.was_ready and group.num_deaths + 1 >= MAX_STARTS:
        raise DeviceError(
            f"The first worker ended {MAX_STARTS} times before it was ready, the last time with "
            f"{worker.process.exitcode}; without --workers the reason may be seen. -9 is often a lack of memory."
        )
    seconds = min(RETRY_SECONDS[0] * 2**group.num_deaths, RETRY_SECONDS[1]) if group.num_deaths else 0.0
    group.num_deaths += 1
    group.start_times[worker.number] = time.monotonic() + seconds
    reason = f"ended with {worker.process.exitcode}" if error is None else f"cannot load the model: {error}"
    logging.error("Worker %d %s; it is started again.", worker.number, reason)


def _drain(group: _Group) -> None:
    """Lets the workers answer the requests in progress."""
    announce_stop()
    group.listener.close()
    for worker in group.workers.values():
        worker.process.terminate()
    deadline = time.monotonic() + group.options.drain_seconds + GRACE_SECONDS
    for worker in group.workers.values():
        worker.process.join(max(0.0, deadline - time.monotonic()))


def _kill(group: _Group) -> None:
    for worker in group.workers.values():
        if worker.process.is_alive():
            worker.process.kill()


def _visible_gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    return tuple(str(index) for index in range(len(query_nvml().gpus)))


def _run(
    model: Model,
    options: ServeOptions,
    listener: socket.socket,
    pipe: Connection,
    loads_first: bool,
) -> None:
    """The main function of a worker."""
    from model_trainer.serving.worker import announce, run_worker

    if loads_first:  # no request is in progress yet
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()

    def ready(service: Any) -> None:
        if not loads_first:
            announce(service, url_of(listener), options)
        pipe.send("ready")

    code = 0
    try:
        run_worker(model, options, listener, loads_first=loads_first, on_ready=ready)
    except ModelTrainerError as error:
        pipe.send(error)
        code = error.exit_code
    end_process(code)


def _end_with_parent(pipe: Connection) -> None:
    """Ends this process with SIGTERM when its parent has ended."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
