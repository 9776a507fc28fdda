"""`logs/` of a run: metrics over time, for TensorBoard and as JSON Lines; `train.log` is `log.LogFile`'s."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import tensorflow as tf
from absl import logging

from model_trainer.storage import files
from model_trainer.storage.lines import LineFile

__all__ = ["Logs"]


class Logs:
    """Figures over time; what cannot be written is said once.

    Args:
        folder: gets events.out.tfevents... and metrics.jsonl.
    """

    def __init__(self, folder: PurePath) -> None:
        self._folder = folder
        self._lines = LineFile(folder / "metrics.jsonl")
        self._events: tf.io.TFRecordWriter | None = None
        with self._without_events_when_full():
            # Records of its own: tf.summary.scalar needs the tensorboard package, and keeps a tensor of each step.
            self._events = tf.io.TFRecordWriter(str(folder / _name()))
            self._write_event(file_version="brain.Event:2")

    def write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        """Notes metrics at `step`, the steps done; `kind` is "step", "epoch" or "observer"."""
        self._lines.write(json.dumps({"kind": kind, "step": step, **metrics}) + "\n")
        values = [
            tf.compat.v1.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in metrics.items()
            if name != "epoch"
        ]
        self._write_event(step=step, summary=tf.compat.v1.Summary(value=values))

    def forget_after(self, step: int, epochs: int) -> None:
        """Takes out what was noted behind `step` steps and `epochs` whole epochs, from where training goes on now."""
        path = self._folder / "metrics.jsonl"
        self._lines.close()
        with contextlib.suppress(OSError):  # such as on a full disk: then both are there
            files.write_text(path, "".join(_lines_until(path, step, epochs)))
        # TensorBoard drops what it has read from this step on.
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write_event(step=step + 1, session_log=start)

    def close(self) -> None:
        """Writes what waits, and ends both."""
        self._lines.close()
        if self._events is not None:
            with self._without_events_when_full():
                self._events.close()

    def _write_event(self, **content: Any) -> None:
        if self._events is None:
            return
        with self._without_events_when_full():
            self._events.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
            self._events.flush()

    @contextlib.contextmanager
    def _without_events_when_full(self) -> Iterator[None]:
        # TensorFlow calls a full disk ResourceExhaustedError, which further up would be told as a GPU's memory. A
        # record that was half written hides all after it, so the file ends there.
        try:
            yield
        except tf.errors.OpError as error:
            self._events = None
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            logging.warning("%s: TensorBoard's events end here: %s.", self._folder, reason)


def _name() -> str:
    """Of a file of events; TensorBoard reads a folder's files in the order of their names."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}.{os.getpid()}"


def _lines_until(path: PurePath, step: int, epochs: int) -> Iterator[str]:
    for line in files.read_text(path).splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError):  # the last line may be half a line
            metrics = json.loads(line)
            # Of a run that went on with another batch size, steps of earlier epochs were counted otherwise.
            if metrics["epoch"] <= epochs or (metrics["kind"] != "epoch" and _is_before(metrics, step, epochs)):
                yield line


def _is_before(metrics: dict[str, Any], step: int, epochs: int) -> bool:
    return bool(metrics["epoch"] == epochs + 1 and metrics["step"] <= step)
