"""The base of the callbacks that record a run in an experiment tracker.

`keras_callbacks.set_run` gives a callback the run and its output folder, in the chief process only; a tracker without a
run records nothing. So that no tracker can end training, each access is one attempt whose errors become a warning.
"""

from __future__ import annotations

import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import keras
from absl import logging

from model_trainer.run.settings import changed_settings, flatten
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["TrackerCallback", "without_passwords"]

FILES = ("history.csv", "model_spec.json", "training_options.json", "report/index.html")
MAX_TIME_FRACTION = 0.02  # maximum fraction of the time for waiting for a tracker that does not answer
MAX_PROBLEM_CHARACTERS = 300  # of a library's error, in a warning

Status = Literal["finished", "stopped", "failed"]


class TrackerCallback(keras.callbacks.Callback):
    """Records a run in a tracker: settings at the start, metrics after each epoch, small files at the end.

    Metrics that could not be sent are sent with those of a later epoch, also by a resumed run.

    Args:
        tracker: name of the tracker, for messages.
    """

    def __init__(self, tracker: str) -> None:
        super().__init__()
        self.tracker = tracker
        self.run_id: str | None = None  # of the tracker
        self.url = ""  # of its page about the run
        self._run: Run | None = None
        self._folder: PurePath | None = None
        self._is_open = False
        self._unsent: list[tuple[int, dict[str, float]]] = []
        self._num_epochs = 0  # finished ones
        self._next_attempt = 0.0  # on the monotonic clock
        self._has_warned = False

    @abstractmethod
    def start_run(self, name: str, folder: str, settings: Mapping[str, Any], all_settings: Mapping[str, Any]) -> None:
        """Starts a run in the tracker and sets `run_id` and `url`; if `run_id` is set, continues that run.

        Args:
            name: of the output folder.
            folder: path of the output folder.
            settings: those that differ from their defaults, and versions; plain values and lists by dotted name.
            all_settings: of the run, also those at their defaults.
        """

    @abstractmethod
    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1."""

    @abstractmethod
    def end_run(self, status: Status, texts: Mapping[str, str]) -> None:
        """Ends the run in the tracker.

        Args:
            status: "stopped" if --resume can continue it.
            texts: content of the small files by path.
        """

    def set_run(self, run: Run, folder: PurePath) -> None:
        """Starts to record the declared run, or continues if the state of a resumed run has been restored."""
        self._run, self._folder = run, folder
        self._attempt(self._open)

    def get_state(self) -> dict[str, Any]:
        unsent = [list(row) for row in self._unsent]
        return {"run_id": self.run_id, "num_epochs": self._num_epochs, "unsent": unsent}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.run_id = state["run_id"] or self.run_id  # after a rollback to before the tracker answered it is known
        self._num_epochs = int(state["num_epochs"])
        self._unsent = [(int(epoch), dict(metrics)) for epoch, metrics in state["unsent"]]

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._num_epochs = epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._run is None:
            return
        self._num_epochs = epoch + 1
        self._unsent.append((epoch + 1, {name: float(value) for name, value in (logs or {}).items()}))
        self._attempt(self._send)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        is_complete = self._num_epochs >= self.params["epochs"] or self.model.stop_training
        self._end("finished" if is_complete else "stopped")

    def on_train_failed(self) -> None:
        """Called instead of `on_train_end` if training raised an error."""
        self._end("failed")

    def _end(self, status: Status) -> None:
        if self.run_id is not None or self._unsent:
            self._next_attempt = 0.0
            self._attempt(lambda: self._close(status))

    def _open(self) -> None:
        assert self._run is not None
        assert self._folder is not None
        versions = json.loads(files.read_text(self._folder / "training_options.json"))["versions"]
        settings = changed_settings(self._run) | {f"versions.{name}": value for name, value in versions.items()}
        all_settings = dict(flatten(self._run.to_dict(), whole_lists=True))
        self.start_run(
            self._folder.name,
            files.real_path(self._folder),
            without_passwords(settings),
            without_passwords(all_settings),
        )
        self._is_open = True
        if self.url:
            logging.info("%s: %s", self.tracker, without_passwords(self.url))

    def _send(self) -> None:
        if not self._is_open:
            self._open()
        while self._unsent:
            self.log_epoch(*self._unsent[0])
            self._unsent.pop(0)

    def _close(self, status: Status) -> None:
        self._send()
        assert self._folder is not None
        paths = [name for name in FILES if files.is_file(self._folder / name)]
        self._is_open = False
        self.end_run(status, {name: without_passwords(files.read_text(self._folder / name)) for name in paths})

    def _attempt(self, action: Callable[[], None]) -> None:
        started = time.monotonic()
        if self._run is None or started < self._next_attempt:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  # the tracker's libraries raise anything
            ended = time.monotonic()
            self._next_attempt = ended + (ended - started) / MAX_TIME_FRACTION
            if not self._has_warned:
                problem = without_passwords(" ".join(f"{type(error).__name__}: {error}".split()))
                logging.warning(
                    "%s does not record this run at the moment; training continues, and later epochs try again. (%s)",
                    self.tracker, problem[:MAX_PROBLEM_CHARACTERS],
                )  # fmt: skip
            self._has_warned = True
        else:
            self._has_warned = False


def without_passwords(value: Any) -> Any:
    """Returns JSON in which the user names and passwords in URIs are replaced by "***".

    Example:
        >>> without_passwords({"train_data.path": "https://me:secret@example.org/train.csv"})
        {'train_data.path': 'https://***@example.org/train.csv'}
    """
    if isinstance(value, Mapping):
        return {key: without_passwords(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_passwords(item) for item in value]
    return re.sub(r"://[^/\s@]*@", "://***@", value) if isinstance(value, str) else value
