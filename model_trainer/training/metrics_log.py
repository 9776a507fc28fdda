"""The metrics and images in `logs/` of a run: TensorBoard events and JSON Lines. (`log.LogFile` writes `train.log`.)"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from model_trainer.storage import files
from model_trainer.storage.growing_file import GrowingFile
from model_trainer.storage.lines import LineFile

__all__ = ["MetricsLog"]


class MetricsLog:
    """Appends metrics to `metrics.jsonl` and to an event file of TensorBoard; a write that fails is logged once.

    Args:
        folder: for events.out.tfevents... and metrics.jsonl.
    """

    def __init__(self, folder: PurePath) -> None:
        self._folder = folder
        self._lines = LineFile(folder / "metrics.jsonl")
        self._events: tf.io.TFRecordWriter | None = None
        with self._events_end_on_error():
            # Not tf.summary.scalar, which needs the tensorboard package, and caches a tensor for each step.
            self._event_file = GrowingFile(folder / _event_file_name())
            self._events = tf.io.TFRecordWriter(str(self._event_file.local))
            self._write_event(file_version="brain.Event:2")

    def write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        """Writes metrics.

        Args:
            kind: "step", "epoch" or "observer".
            step: number of finished steps of the run.
            metrics: values by name; "epoch", 1-based, has to be one of them, and is not written to TensorBoard.
        """
        self._lines.write(json.dumps({"kind": kind, "step": step, **metrics}) + "\n")
        values = [
            tf.compat.v1.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in metrics.items()
            if name != "epoch"
        ]
        self._write_event(step=step, summary=tf.compat.v1.Summary(value=values))

    def write_images(self, tag: str, step: int, images: Sequence[np.ndarray]) -> None:
        """Writes images for TensorBoard, which shows them under `tag`.

        Args:
            tag: such as "augmented".
            step: number of finished steps of the run.
            images: uint8 `(height, width, channels)` each, with 1, 3 or 4 channels.
        """
        values = []
        for index, pixels in enumerate(images):
            height, width, channels = pixels.shape
            encoded = io.BytesIO()
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(encoded, "PNG")
            image = tf.compat.v1.Summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=encoded.getvalue()
            )
            values.append(tf.compat.v1.Summary.Value(tag=f"{tag}/image/{index}", image=image))
        self._write_event(step=step, summary=tf.compat.v1.Summary(value=values))

    def truncate(self, step: int, epochs: int) -> None:
        """Removes what was logged after a position to which training returns.

        Args:
            step: number of finished steps there.
            epochs: number of finished epochs there.
        """
        path = self._folder / "metrics.jsonl"
        self._lines.close()
        with contextlib.suppress(OSError):  # such as a full disk: then the old metrics stay
            files.write_text(path, "".join(_lines_until(path, step, epochs)))
        # TensorBoard then discards what it has read from this step on.
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write_event(step=step + 1, session_log=start)

    def close(self) -> None:
        """Writes buffered metrics, and closes both files."""
        self._lines.close()
        if self._events is not None:
            with self._events_end_on_error():
                self._events.close()
                self._event_file.copy()
                self._event_file.close()

    def _write_event(self, **content: Any) -> None:
        if self._events is None:
            return
        with self._events_end_on_error():
            self._events.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
            self._events.flush()
            self._event_file.copy()

    @contextlib.contextmanager
    def _events_end_on_error(self) -> Iterator[None]:
        # TensorFlow raises ResourceExhaustedError for a full disk, which callers would report as a lack of GPU memory.
        # A partly written record hides all after it, so nothing more is written to the file.
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            self._events = None
            text = error.message if isinstance(error, tf.errors.OpError) else error.strerror or str(error)
            reason = text.splitlines()[0].rpartition("; ")[2]
            logging.warning("%s: TensorBoard events are no longer written: %s.", self._folder, reason)


def _event_file_name() -> str:
    """The name of a new event file; TensorBoard reads the files of a folder in the order of their names."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}.{os.getpid()}"


def _lines_until(path: PurePath, step: int, epochs: int) -> Iterator[str]:
    for line in files.read_text(path).splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError):  # the last line may be incomplete
            metrics = json.loads(line)
            # If the run was resumed with another batch size, the steps of earlier epochs had other numbers.
            if metrics["epoch"] <= epochs or (metrics["kind"] != "epoch" and _is_before(metrics, step, epochs)):
                yield line


def _is_before(metrics: dict[str, Any], step: int, epochs: int) -> bool:
    return bool(metrics["epoch"] == epochs + 1 and metrics["step"] <= step)
