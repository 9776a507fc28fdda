"""`output/<name>-<yyyymmdd-hhmmss>/`: everything that a run leaves, written as it goes along."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

import model_trainer
from model_trainer.models.files import save_model
from model_trainer.models.load import find_model_file
from model_trainer.storage.local import make_run_dir, write_text
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
        (folder.path / "logs").mkdir()
        write_text(folder.path / "model_spec.json", _json(description))
        return folder

    @classmethod
    def reopen(cls, path: Path, description: dict[str, Any]) -> Self:
        """The folder of a run that goes on."""
        (path / "logs").mkdir(exist_ok=True)
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
        """
        description = self.description | {"thresholds": None if thresholds is None else list(thresholds)}
        save_model(model, self.path / f"{name}.hdf5", description)
        if find_model_file(self.path).stem == name:
            write_text(self.path / "model_spec.json", _json(description))

    def write_history(self, rows: list[Row], title: str) -> None:
        """Writes history.csv and curves.png anew."""
        write_history(self.path / "history.csv", rows)
        draw_curves(self.path / "curves.png", rows, title)

    @contextlib.contextmanager
    def logs(self) -> Iterator[Logs]:
        """Opens logs/: TensorBoard events and metrics.jsonl; train.log is `log.LogFile`'s."""
        folder = self.path / "logs"
        events = tf.summary.create_file_writer(str(folder))
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as lines:
            try:
                yield Logs(events, lines)
            finally:
                events.close()


class Logs:
    """Figures over time, for TensorBoard and as JSON Lines."""

    def __init__(self, events: tf.summary.SummaryWriter, lines: Any) -> None:
        self._events = events
        self._lines = lines

    def write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        """Notes figures at `step`, the steps done; `kind` is "step" or "epoch"."""
        self._lines.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self._lines.flush()
        # As a protocol buffer: tf.summary.scalar needs the tensorboard package, which only who looks at them needs.
        values = [
            tf.compat.v1.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in figures.items()
            if name != "epoch"
        ]
        with self._events.as_default():
            tf.summary.experimental.write_raw_pb(tf.compat.v1.Summary(value=values).SerializeToString(), step=step)
        if kind == "epoch":
            self._events.flush()


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
