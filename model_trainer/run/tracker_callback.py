"""The base of the callbacks that record a run in an experiment tracker.

`keras_callbacks.set_run` gives a callback the run and its output folder, in the chief process only; a tracker without a
run records nothing. So that no tracker can end training, each access is one attempt whose errors become a warning. The
tracker's run is ended when the report is written, or as soon as no report will follow.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import keras
from absl import logging

from model_trainer.run.settings import changed_settings, flatten
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.run.run import Run

__all__ = ["TrackerCallback", "flat_metrics", "without_passwords"]

FILES = ("history.csv", "model_spec.json", "training_options.json", "report/index.html")
MAX_TIME_FRACTION = 0.02  # maximum fraction of the time for waiting for a tracker that does not answer
MAX_PROBLEM_CHARACTERS = 300  # of a library's error, in a warning

Status = Literal["finished", "stopped", "failed"]


class TrackerCallback(keras.callbacks.Callback):
    """Records a run in a tracker: settings at the start, metrics after each epoch, files and evaluation at the end.

    Metrics that could not be sent are sent with those of a later epoch, also by a resumed run.

    Args:
        tracker: name of the tracker, for messages.
    """

    def __init__(self, tracker: str) -> None:
        super().__init__()
        self.tracker = tracker
        self.run_id: str | None = None  # of the run in the tracker
        self.url = ""  # of its page about the run
        self._run: Run | None = None
        self._folder: PurePath | None = None
        self._is_open = False
        self._has_settings = False  # whether the tracker has accepted them
        self._status: Status | None = None  # with which training has ended
        self._unsent: list[tuple[int, dict[str, float]]] = []
        self._num_epochs = 0  # finished ones
        self._next_attempt = 0.0  # on the monotonic clock
        self._has_warned = False
        self._has_warned_of_settings = False

    @abstractmethod
    def start_run(self, name: str, folder: str) -> None:
        """Starts a run in the tracker and sets `run_id` and `url`; if `run_id` is set, continues that run.

        Args:
            name: of the output folder.
            folder: path of the output folder.
        """

    @abstractmethod
    def log_settings(self, folder: str, settings: Mapping[str, Any], all_settings: Mapping[str, Any]) -> None:
        """Records the settings of the run that was started, also of one that was continued.

        Args:
            folder: path of the output folder.
            settings: those that differ from their defaults, and versions; plain values and lists by dotted name.
            all_settings: of the run, also those at their defaults.
        """

    @abstractmethod
    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1."""

    @abstractmethod
    def end_run(self, status: Status, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Ends the run in the tracker.

        Args:
            status: "stopped" if --resume can continue it.
            metrics: of the evaluation, such as "evaluation/accuracy", with the bounds of their 95 % confidence
                intervals as "evaluation/accuracy_low" and "evaluation/accuracy_high".
            texts: content of the small files by path.
        """

    def set_run(self, run: Run, folder: PurePath) -> None:
        """Starts to record the declared run, or continues if the state of a resumed run has been restored."""
        self._run, self._folder, self._status = run, folder, None
        self._attempt(self._open)

    def get_state(self) -> dict[str, Any]:
        unsent = [list(row) for row in self._unsent]
        return {"run_id": self.run_id, "num_epochs": self._num_epochs, "unsent": unsent}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.run_id = state["run_id"] or self.run_id  # a rollback may restore a state without an ID yet
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
        if self._num_epochs >= self.params["epochs"] or self.model.stop_training:
            self._status = "finished"  # `on_run_end` follows, when the final model and the report are written
        else:
            self._end("stopped")  # now, as the process may be killed before a report is written
        self.set_model(None)  # its memory is needed for the evaluation

    def on_train_failed(self) -> None:
        """Called if training raised an error."""
        self._end("failed")

    def on_run_end(self, folder: PurePath, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Called when all files of a run are written; the metrics are those of `evaluation.json`."""
        status, self._status = self._status, None
        if status is not None:
            self._end(status, metrics)

    def _end(self, status: Status, metrics: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        if self.run_id is not None or self._unsent:
            self._next_attempt = 0.0
            self._attempt(lambda: self._close(status, metrics), is_last=True)

    def _open(self) -> None:
        assert self._folder is not None
        self._has_settings = False
        self.start_run(self._folder.name, files.real_path(self._folder))
        self._is_open = True
        if self.url:
            logging.info("%s: %s", self.tracker, without_passwords(self.url))
        self._attempt_settings()

    def _attempt_settings(self) -> None:
        try:
            self._send_settings()
        except Exception as error:  # noqa: BLE001  # metrics are recorded all the same
            if not self._has_warned_of_settings:
                logging.warning(
                    "%s has not recorded the settings of this run; training continues, and metrics are recorded. (%s)",
                    self.tracker, _problem(error),
                )  # fmt: skip
            self._has_warned_of_settings = True

    def _send_settings(self) -> None:
        assert self._run is not None
        assert self._folder is not None
        versions = json.loads(files.read_text(self._folder / "training_options.json"))["versions"]
        settings = changed_settings(self._run) | {f"versions.{name}": value for name, value in versions.items()}
        all_settings = dict(flatten(self._run.to_dict(), whole_lists=True))
        folder = files.real_path(self._folder)
        self.log_settings(folder, without_passwords(settings), without_passwords(all_settings))
        self._has_settings = True

    def _send(self) -> None:
        if not self._is_open:
            self._open()
        self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent:
            self.log_epoch(*self._unsent[0])
            self._unsent.pop(0)

    def _close(self, status: Status, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        assert self._folder is not None
        if not self._is_open:
            self._open()
        values: dict[str, float] = {}
        texts: dict[str, str] = {}
        with contextlib.ExitStack() as last:
            # Also if something cannot be read, or is refused: the tracker's run must not stay open.
            last.callback(self.end_run, status, values, texts)
            self._is_open = False
            values.update(flat_metrics(metrics))
            for name in FILES:
                if files.is_file(self._folder / name):
                    texts[name] = without_passwords(files.read_text(self._folder / name))
            if not self._has_settings:  # the tracker may have been unavailable for a moment
                self._attempt_settings()
            self._send_unsent()

    def _attempt(self, action: Callable[[], None], *, is_last: bool = False) -> None:
        started = time.monotonic()
        if self._run is None or started < self._next_attempt:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  # the tracker's libraries raise anything
            ended = time.monotonic()
            self._next_attempt = ended + (ended - started) / MAX_TIME_FRACTION
            if not self._has_warned:
                text = (
                    "%s has not recorded all of this run; the output folder has everything. (%s)"
                    if is_last
                    else "%s does not record this run at the moment; training continues. What is missing is sent "
                    "with a later epoch, if it is accepted then. (%s)"
                )
                logging.warning(text, self.tracker, _problem(error))
            self._has_warned = True
        else:
            self._has_warned = False


def flat_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the metrics of an evaluation and the bounds of their intervals by name; undefined ones are left out.

    Example:
        >>> flat_metrics({"accuracy": {"value": 0.9, "low": 0.8, "high": None}})
        {'evaluation/accuracy': 0.9, 'evaluation/accuracy_low': 0.8}
    """
    keys = {"value": "", "low": "_low", "high": "_high"}
    return {
        f"evaluation/{name}{suffix}": float(values[key])
        for name, values in metrics.items()
        for key, suffix in keys.items()
        if values.get(key) is not None
    }


def _problem(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return str(without_passwords(text))[:MAX_PROBLEM_CHARACTERS]


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
