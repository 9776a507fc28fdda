"""`output/<name>-<yyyymmdd-hhmmss>/`: everything that a run leaves, written as it goes along."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

import model_trainer
from model_trainer.errors import StorageError
from model_trainer.model_files.container import open_model_file
from model_trainer.model_files.files import read_description, save_model
from model_trainer.model_files.load import find_model_file
from model_trainer.run.run import Run
from model_trainer.storage import files
from model_trainer.storage.folders import make_run_dir
from model_trainer.storage.lines import LineFile, csv_lines
from model_trainer.storage.trouble import is_full, not_written
from model_trainer.training.history import Row, draw_curves, write_history
from model_trainer.training.metrics_log import Logs

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: PurePath
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
            files.write_text(folder.path / "model_spec.json", _json(description))
        except StorageError:
            with contextlib.suppress(OSError):
                files.delete_folder(folder.path)
            raise
        return folder

    @classmethod
    def reopen(cls, path: PurePath, description: dict[str, Any]) -> Self:
        """The folder of a run that goes on."""
        _make_folder(path / "logs")
        return cls(path, description)

    def write_options(self, run: Run, found: dict[str, Any]) -> None:
        """Writes training_options.json: the run as declared, and what was found out about it."""
        versions = {
            "model_trainer": model_trainer.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
        content = {"versions": versions, **found, "run": run.to_dict()}
        files.write_text(self.path / "training_options.json", _json(content))

    def save_model(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None = None) -> None:
        """Writes `name`.hdf5, whole or not at all; model_spec.json follows the model that `predict` takes.

        Args:
            thresholds: of each class, that belong to these weights.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / f"{name}.hdf5"
        description = self.description | {"thresholds": None if thresholds is None else list(thresholds)}
        with _with_hint_to_resume():
            files.check_room(path, _num_bytes(model))  # a write that fails inside HDF5 ends the process with a crash
            try:
                save_model(model, path, description)
            except RuntimeError as error:  # what HDF5 makes of a file that cannot be closed
                raise not_written(path, error) from error
            if find_model_file(self.path).stem == name:
                files.write_text(self.path / "model_spec.json", _json(description))

    def save_best(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None, epoch_before: int) -> None:
        """As `save_model`; the file so far, of `epoch_before`, is kept for `put_back`."""
        path, kept = self.path / f"{name}.hdf5", self._kept_model(name, epoch_before)
        # One that is there already was kept before the process was killed, when the file was still that epoch's.
        if epoch_before and files.is_file(path) and not files.exists(kept):
            self._forget_kept(name)
            with contextlib.suppress(OSError):  # such as where the folder of checkpoints could not be made
                files.copy(path, kept)
        self.save_model(model, name, thresholds)

    def put_back(self, name: str, epoch: int) -> bool:
        """Gives the best model of `epoch` its name again, for training that went back to before a better one.

        With epoch 0, which is none, the file of the better one is removed.

        Returns:
            Whether it was kept.
        """
        path, kept = self.path / f"{name}.hdf5", self._kept_model(name, epoch)
        if not epoch:
            files.delete(path)
        if not files.is_file(kept):
            return False
        with _with_hint_to_resume():
            files.copy(kept, path)
            if find_model_file(self.path).stem == name:
                with open_model_file(path) as file:
                    files.write_text(self.path / "model_spec.json", _json(read_description(file) or self.description))
        return True

    def forget_kept_models(self) -> None:
        """Removes what `save_best` keeps, at the end of a run."""
        self._forget_kept("*")

    def _kept_model(self, name: str, epoch: int) -> PurePath:
        return self.path / "checkpoints" / f"{name}-epoch-{epoch:05d}.hdf5"

    def _forget_kept(self, name: str) -> None:
        folder = self.path / "checkpoints"
        for each in fnmatch.filter(files.names_in(folder), f"{name}-epoch-*.hdf5"):
            files.delete(folder / each)

    def write_history(self, rows: list[Row], title: str, *, with_curves: bool = True) -> None:
        """Writes history.csv anew, and curves.png where it is asked for; without rows there are none.

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
        """Appends to bad_steps.csv, `step,image,why`: which images steps of the run showed that went wrong."""
        path = self.path / "bad_steps.csv"
        header = [] if files.exists(path) else [("step", "image", "why")]
        rows = [(step, name, why) for step, names in steps for name in names]
        lines = LineFile(path)
        lines.write(csv_lines([*header, *rows]))
        lines.close()

    @contextlib.contextmanager
    def logs(self) -> Iterator[Logs]:
        """Opens logs/: TensorBoard events and metrics.jsonl; train.log is `log.LogFile`'s."""
        logs = Logs(self.path / "logs")
        try:
            yield logs
        finally:
            logs.close()


@contextlib.contextmanager
def _with_hint_to_resume() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        cure = "Make room" if is_full(error) else "Mend that"
        raise StorageError(f"{error} {cure}, then go on with --resume.") from error


def _make_folder(path: PurePath) -> None:
    try:
        files.make_folder(path, parents=False)
    except OSError as error:
        raise not_written(path, error) from error


def _num_bytes(model: keras.Model) -> int:
    """About the size of its .hdf5; of each array and layer the headers take some kB."""
    return sum(int(np.prod(each.shape)) * 4 + 4096 for each in model.weights) + 16_384


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
