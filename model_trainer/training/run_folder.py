"""`output/<name>-<yyyymmdd-hhmmss>/`: everything that a run leaves, written as it goes along."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from absl import logging

import model_trainer
from model_trainer.errors import StorageError
from model_trainer.models.files import save_model
from model_trainer.models.load import find_model_file
from model_trainer.storage.local import LineFile, check_room, is_full, make_run_dir, not_written, write_text
from model_trainer.training.history import Row, draw_curves, write_history
from model_trainer.training.run import Run

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    description: dict[str, Any]  # what model_spec.json says

    @classmethod
    def make(cls, run: Run, description: dict[str, Any]) -> Self:
        """Makes a new folder.

        Raises:
            StorageError: it cannot be made.
        """
        folder = cls(make_run_dir(run.output_dir, f"{run.name}-{time.strftime('%Y%m%d-%H%M%S')}"), description)
        try:
            _make_folder(folder.path / "logs")
            write_text(folder.path / "model_spec.json", _json(description))
        except StorageError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        return folder

    @classmethod
    def reopen(cls, path: Path, description: dict[str, Any]) -> Self:
        """The folder of a run that goes on."""
        _make_folder(path / "logs")
        return cls(path, description)

    def forget_figures_after(self, step: int, epochs: int) -> None:
        """Removes what a killed run logged behind its checkpoint, after `step` steps and `epochs` whole epochs."""
        lines = self.path / "logs" / "metrics.jsonl"
        if not lines.is_file():
            return
        kept = []
        for line in lines.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError, KeyError):  # the last line may be half a line
                figures = json.loads(line)
                if figures["step"] <= step and figures["epoch"] <= epochs + (figures["kind"] == "step"):
                    kept.append(line)
        write_text(lines, "".join(kept))

    def write_options(self, run: Run, found: dict[str, Any]) -> None:
        """Writes training_options.json: the run as declared, and what was found out about it."""
        versions = {
            "model_trainer": model_trainer.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
        content = {"versions": versions, **found, "run": run.to_dict()}
        write_text(self.path / "training_options.json", _json(content))

    def save_model(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None = None) -> None:
        """Writes `name`.hdf5, whole or not at all; model_spec.json follows the model that `predict` takes.

        Args:
            thresholds: of each class, that belong to these weights.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / f"{name}.hdf5"
        description = self.description | {"thresholds": None if thresholds is None else list(thresholds)}
        with _told_to_resume():
            check_room(path, _num_bytes(model))  # a write that fails inside HDF5 ends the process with a crash
            try:
                save_model(model, path, description)
            except RuntimeError as error:  # what HDF5 makes of a file that cannot be closed
                raise not_written(path, error) from error
            if find_model_file(self.path).stem == name:
                write_text(self.path / "model_spec.json", _json(description))

    def write_history(self, rows: list[Row], title: str) -> None:
        """Writes history.csv and curves.png anew.

        Raises:
            StorageError: one of them cannot be written.
        """
        with _told_to_resume():
            write_history(self.path / "history.csv", rows)
            draw_curves(self.path / "curves.png", rows, title)

    def note_bad_steps(self, steps: list[tuple[int, list[str]]], why: str) -> None:
        """Appends to bad_steps.csv, `step,image,why`: which images steps of the run showed that went wrong."""
        path = self.path / "bad_steps.csv"
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        if not path.exists():
            writer.writerow(["step", "image", "why"])
        writer.writerows((step, name, why) for step, names in steps for name in names)
        lines = LineFile(path)
        lines.write(rows.getvalue())
        lines.close()

    @contextlib.contextmanager
    def logs(self) -> Iterator[Logs]:
        """Opens logs/: TensorBoard events and metrics.jsonl; train.log is `log.LogFile`'s."""
        logs = Logs(self.path / "logs")
        try:
            yield logs
        finally:
            logs.close()


class Logs:
    """Figures over time, for TensorBoard and as JSON Lines; what cannot be written is said once.

    Args:
        folder: gets events.out.tfevents... and metrics.jsonl.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines = LineFile(folder / "metrics.jsonl")
        self._events: tf.summary.SummaryWriter | None = None
        with self._without_events_when_full():
            self._events = tf.summary.create_file_writer(str(folder))

    def write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        """Notes figures at `step`, the steps done; `kind` is "step" or "epoch"."""
        self._lines.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        if self._events is None:
            return
        # As a protocol buffer: tf.summary.scalar needs the tensorboard package, which only who looks at them needs.
        values = [
            tf.compat.v1.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in figures.items()
            if name != "epoch"
        ]
        event = tf.compat.v1.Summary(value=values).SerializeToString()
        with self._without_events_when_full():
            with self._events.as_default():
                # TensorFlow keeps a tensor of each plain number that it ever was given, 2 kB for this one.
                tf.summary.experimental.write_raw_pb(event, step=np.int64(step))
            if kind == "epoch":
                self._events.flush()

    def close(self) -> None:
        """Writes what waits, and ends both."""
        self._lines.close()
        if self._events is not None:
            with self._without_events_when_full():
                self._events.close()

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


@contextlib.contextmanager
def _told_to_resume() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        cure = "Make room" if is_full(error) else "Mend that"
        raise StorageError(f"{error} {cure}, then go on with --resume.") from error


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


def _num_bytes(model: keras.Model) -> int:
    """About the size of its .hdf5; of each array and layer the headers take some kB."""
    return sum(int(np.prod(each.shape)) * 4 + 4096 for each in model.weights) + 16_384


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
