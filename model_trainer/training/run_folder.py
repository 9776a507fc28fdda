"""The output folder of a run, `output/<name>-<yyyymmdd-hhmmss>/`, and everything that training writes to it."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

import model_trainer
from model_trainer.display.notebook import in_notebook
from model_trainer.errors import ModelFileError, StorageError, UnavailableError
from model_trainer.model_files.container import open_model_file
from model_trainer.model_files.files import read_description, save_model
from model_trainer.model_files.load import find_model_file
from model_trainer.model_files.temperature import write_temperature
from model_trainer.run.run import Run
from model_trainer.storage import files
from model_trainer.storage.folders import make_run_dir
from model_trainer.storage.lines import LineFile, csv_lines
from model_trainer.storage.manifest import note_unfinished
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.storage.write_errors import is_full, not_written
from model_trainer.training.history import Row, draw_curves, write_history
from model_trainer.training.metrics_log import MetricsLog

__all__ = ["EVALUATION_FILE", "RunFolder", "with_resume_hint"]

EVALUATION_FILE = "evaluation/evaluation.json"  # the metrics of the model that `predict` uses


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run."""

    path: PurePath
    description: dict[str, Any]  # the content of model_spec.json

    @classmethod
    def make(cls, run: Run, description: dict[str, Any]) -> Self:
        """Creates a new folder.

        Raises:
            StorageError: it cannot be created.
        """
        folder = cls(make_run_dir(run.output_dir, f"{run.name}-{time.strftime('%Y%m%d-%H%M%S')}"), description)
        try:
            note_unfinished(folder.path)
            _make_folder(folder.path / "logs")
            files.write_text(folder.path / "model_spec.json", _json(description))
        except StorageError:
            with contextlib.suppress(OSError):
                files.delete_folder(folder.path)
            raise
        return folder

    @classmethod
    def reopen(cls, path: PurePath, description: dict[str, Any]) -> Self:
        """Returns the folder of a run that is resumed."""
        _make_folder(path / "logs")
        return cls(path, description)

    def write_options(self, run: Run, resolved_settings: dict[str, Any]) -> None:
        """Writes training_options.json: the run as declared, and the settings that were resolved for it."""
        versions = {
            "model_trainer": model_trainer.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
        content = {"versions": versions, "command": _command(), **resolved_settings, "run": run.to_dict()}
        note_unfinished(self.path)  # also when it is resumed
        files.write_text(self.path / "training_options.json", _json(content))

    def save_model(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None = None) -> None:
        """Writes `name`.hdf5 atomically, and model_spec.json if it is the model that `predict` uses.

        Args:
            thresholds: of each class, fitted with these weights.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / f"{name}.hdf5"
        description = self.description | {"thresholds": None if thresholds is None else list(thresholds)}
        with _with_hint_to_resume():
            self._forget_evaluation(name)
            files.check_room(path, _num_bytes(model))  # a write that fails inside HDF5 crashes the process
            try:
                save_model(model, path, description)
            except RuntimeError as error:  # raised by HDF5 for a file that cannot be closed
                raise not_written(path, error) from error
            if find_model_file(self.path).stem == name:
                files.write_text(self.path / "model_spec.json", _json(description))

    def save_best(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None, epoch_before: int) -> None:
        """Like `save_model`; the previous file, of `epoch_before`, is backed up for `restore_best`."""
        path, backup = self.path / f"{name}.hdf5", self._backup_path(name, epoch_before)
        # An existing backup is from before the process was killed, when the file was still that of `epoch_before`.
        if epoch_before and files.is_file(path) and not files.exists(backup):
            self._delete_backups(name)
            with contextlib.suppress(OSError):  # for example if the folder of checkpoints could not be created
                files.copy(path, backup)
        self.save_model(model, name, thresholds)

    def restore_best(self, name: str, epoch: int) -> bool:
        """Restores the best model of `epoch` from its backup, because a rollback has undone a better, later one.

        Epoch 0 means that no model was saved before: the file is deleted.

        Returns:
            Whether there was a backup.
        """
        path, backup = self.path / f"{name}.hdf5", self._backup_path(name, epoch)
        self._forget_evaluation(name)
        if not epoch:
            files.delete(path)
        if not files.is_file(backup):
            return False
        with _with_hint_to_resume():
            files.copy(backup, path)
            if find_model_file(self.path).stem == name:
                with open_model_file(path) as file:
                    files.write_text(self.path / "model_spec.json", _json(read_description(file) or self.description))
        return True

    def _forget_evaluation(self, name: str) -> None:
        """Removes the evaluation and the temperature of the weights in `name`.hdf5, which are about to be replaced."""
        path = self.path / f"{name}.hdf5"
        if not files.is_file(path):
            return
        if find_model_file(self.path) == path:
            files.delete(self.path / EVALUATION_FILE)
        with contextlib.suppress(ModelFileError):  # a missing or damaged model_spec.json has no temperature
            write_temperature(path, None)

    def forget_kept_models(self) -> None:
        """Deletes the backups of `save_best`, at the end of a run."""
        self._delete_backups("*")

    def _backup_path(self, name: str, epoch: int) -> PurePath:
        return self.path / "checkpoints" / f"{name}-epoch-{epoch:05d}.hdf5"

    def _delete_backups(self, name: str) -> None:
        folder = self.path / "checkpoints"
        for backup in fnmatch.filter(files.names_in(folder), f"{name}-epoch-*.hdf5"):
            files.delete(folder / backup)

    def write_history(self, rows: list[Row], title: str, *, with_curves: bool = True) -> None:
        """Writes history.csv and, if asked for, curves.png; without rows both are deleted.

        Raises:
            StorageError: one of them cannot be written.
        """
        if not rows:
            for name in ("history.csv", "curves.png"):
                files.delete(self.path / name)
            return
        with _with_hint_to_resume():
            write_history(self.path / "history.csv", rows)
            if with_curves:
                draw_curves(self.path / "curves.png", rows, title)

    def note_bad_steps(self, steps: list[tuple[int, list[str]]], why: str) -> None:
        """Appends the images of bad steps of the run to bad_steps.csv, `step,image,why`.

        Args:
            steps: number of each step in the run, and the names of its images.
            why: "not finite" or "left out".
        """
        path = self.path / "bad_steps.csv"
        header = [] if files.exists(path) else [("step", "image", "why")]
        rows = [(step, name, why) for step, names in steps for name in names]
        lines = LineFile(path)
        lines.write(csv_lines([*header, *rows]))
        lines.close()

    @contextlib.contextmanager
    def logs(self) -> Iterator[MetricsLog]:
        """Opens TensorBoard events and metrics.jsonl in logs/. (`log.LogFile` writes train.log.)"""
        logs = MetricsLog(self.path / "logs")
        try:
            yield logs
        finally:
            logs.close()


@contextlib.contextmanager
def _with_hint_to_resume() -> Iterator[None]:
    try:
        yield
    except (UnavailableError, LostLockError):
        raise
    except StorageError as error:
        cure = "Free some space" if is_full(error) else "Fix the cause"
        raise StorageError(f"{error} {cure}, then continue with --resume.") from error


@contextlib.contextmanager
def with_resume_hint() -> Iterator[None]:
    """Adds a hint at `--resume` to the error of an object store that does not answer."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(f"{error} Continue with --resume once it answers.") from error


def _make_folder(path: PurePath) -> None:
    try:
        files.make_folder(path, parents=False)
    except OSError as error:
        raise not_written(path, error) from error


def _num_bytes(model: keras.Model) -> int:
    """Returns the approximate size of the model's .hdf5; the headers of each array take a few kB."""
    return sum(int(np.prod(weight.shape)) * 4 + 4096 for weight in model.weights) + 16_384


def _command() -> list[str]:
    """Returns the command that started this process, as a user types it; empty in a notebook."""
    if in_notebook():
        return []
    program = PurePath(sys.argv[0])
    if program.name in ("__main__.py", "model-trainer"):
        return ["model-trainer", *sys.argv[1:]]
    if program == PurePath("script/TrainModel.py"):
        return ["script/train", *sys.argv[1:]]
    return [*(["python"] if program.suffix == ".py" else []), *sys.argv]


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
