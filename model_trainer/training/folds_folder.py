"""The folder of a k-fold training, `output/<name>-folds-<yyyymmdd-hhmmss>/`, and the `folds.json` in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

from absl import logging

from model_trainer.cluster.supervisor import STARTED
from model_trainer.errors import ConfigError, DataError, StoppedError, StorageError
from model_trainer.run.run import Run
from model_trainer.storage import files
from model_trainer.storage.folders import make_run_dir

__all__ = ["FILE_NAME", "FoldsFolder"]

FILE_NAME = "folds.json"
VERSION = 1


@dataclass(frozen=True)
class FoldsFolder:
    """The folder of all folds; each fold has an ordinary output folder in it, `fold-1-<yyyymmdd-hhmmss>`, ...

    Attributes:
        path: of the folder.
        content: of `folds.json`; docs/training.md has its schema.
    """

    path: PurePath
    content: dict[str, Any]

    @classmethod
    def make(cls, run: Run, folds: int, seed: int, data: str, fingerprint: str, num_images: int) -> Self:
        """Creates a new folder.

        Args:
            data: which of the run's data is divided, "train_data + val_data" or "train_data".
            fingerprint, num_images: of that data.

        Raises:
            StorageError: it cannot be created.
        """
        path = make_run_dir(run.output_dir, f"{run.name}-folds-{time.strftime('%Y%m%d-%H%M%S')}")
        content = {
            "version": VERSION,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "state": "training",
            "settings": {"folds": folds, "seed": seed, "data": data},
            "data_fingerprint": fingerprint,
            "num_images": num_images,
            "run": run.to_dict(),
            "folds": [
                {"fold": number, "state": "waiting", "folder": None, "metrics": None} for number in range(1, folds + 1)
            ],
            "main_metric": None,
            "metrics": None,
            "label_issues": None,
        }
        folder = cls(path, content)
        files.make_folder(path / "evaluation")
        folder.write()
        return folder

    @classmethod
    def find(cls, run: Run, resume_from: str | PurePath | None = None) -> Self | None:
        """Returns the folder to resume: `resume_from`, or the newest one with the run's name; None if there is none.

        Raises:
            DataError: `resume_from` is not the folder of a k-fold training, or its `folds.json` is damaged.
        """
        if resume_from is not None:
            path = files.as_path(resume_from)
            if not files.is_file(path / FILE_NAME):
                raise DataError(f"{path} has no {FILE_NAME}; is it the folder of a training with --folds?")
            return cls(path, _read(path / FILE_NAME))
        pattern = re.compile(re.escape(run.name) + r"-folds-(\d{8}-\d{6})(?:-(\d+))?")
        candidates, parent = [], files.as_path(run.output_dir)
        for name in files.names_in(parent):
            match, path = pattern.fullmatch(name), parent / name
            # As in `find_folder`: a restarted process resumes what was started under its supervisor, nothing older.
            if match and match[1] >= os.environ.get(STARTED, "") and files.is_file(path / FILE_NAME):
                candidates.append(((match[1], int(match[2] or 1)), path))
        if not candidates:
            return None
        _, path = max(candidates)
        return cls(path, _read(path / FILE_NAME))

    def check(self, folds: int, seed: int, data: str) -> None:
        """Raises ConfigError if the folder was started with other folds than these."""
        for name, now in (("folds", folds), ("seed", seed), ("data", data)):
            before = self.content["settings"].get(name)
            if before != now:
                shown = {"folds": "--folds", "seed": "The seed of the folds", "data": "The divided data"}[name]
                raise ConfigError(
                    f"{shown} was {before} and is {now} now; {self.path} was started with the former, and other folds "
                    "would validate images that a model has seen. Change it back, or leave out --resume."
                )

    def check_data(self, fingerprint: str) -> None:
        """Raises DataError if the data differs from that with which the folder was started."""
        if fingerprint != self.content["data_fingerprint"]:
            raise DataError(
                f"The data differs from that with which {self.path} was started: paths, sizes or labels differ, so its "
                "folds would differ. Restore it, or start again without --resume."
            )

    def run_folder(self, number: int) -> PurePath | None:
        """Returns the newest output folder of a fold, counted from 1; None if the fold has not been started."""
        pattern = re.compile(rf"fold-{number}-\d{{8}}-\d{{6}}(?:-\d+)?")
        names = [name for name in files.names_in(self.path) if pattern.fullmatch(name)]
        started = [name for name in names if files.is_file(self.path / name / "training_options.json")]
        return self.path / max(started) if started else None

    @property
    def is_started(self) -> bool:
        """Whether any fold has an output folder."""
        return any(self.run_folder(number) is not None for number in range(1, self.content["settings"]["folds"] + 1))

    def note_fold(self, number: int, **values: Any) -> None:
        """Updates values of a fold, counted from 1, in `folds.json`."""
        self.content["folds"][number - 1].update(values)
        self.write()

    def note(self, **values: Any) -> None:
        """Updates values of the whole training in `folds.json`."""
        self.content.update(values)
        self.write()

    def note_error(self, error: BaseException, number: int | None = None) -> None:
        """Records that `error` ended the training, in fold `number` if given, unless `folds.json` cannot be written."""
        state = "stopped" if isinstance(error, (KeyboardInterrupt, StoppedError)) else "failed"
        with contextlib.suppress(OSError):  # the first error is the one to report
            if not files.exists(self.path / FILE_NAME):
                return  # deleted, since nothing was trained
            if number is None:
                self.note(state=state)
                return
            path = self.run_folder(number)
            self.note_fold(number, state=state, folder=None if path is None else path.name)

    def write(self) -> None:
        """Writes `folds.json`; raises StorageError if it cannot."""
        text = json.dumps(self.content, indent=1, ensure_ascii=False, allow_nan=False)
        files.write_text(self.path / FILE_NAME, text + "\n")


def _read(path: PurePath) -> dict[str, Any]:
    cure = "Start again without --resume."
    try:
        content = json.loads(files.read_text(path))
    except StorageError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}. {cure}") from error
    settings = content.get("settings") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not _has_folds(content, settings.get("folds")):
        raise DataError(f"{path} does not describe the folds of a training. {cure}")
    if not isinstance(content.get("version"), int) or content["version"] > VERSION:
        raise DataError(
            f"{path} has the version {content.get('version')!r}; this Model Trainer knows {VERSION}. {cure}"
        )
    logging.debug("Read %s.", path)
    return content


def _has_folds(content: dict[str, Any], count: Any) -> bool:
    folds = content.get("folds")
    is_list = isinstance(folds, list) and all(isinstance(fold, dict) for fold in folds)
    return is_list and len(content["folds"]) == count and isinstance(content.get("data_fingerprint"), str)
