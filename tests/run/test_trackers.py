"""Experiment trackers: as declared values, and what every tracker does with a run. Their packages are not needed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any, final
from unittest import mock

import pytest
from absl import logging

from model_trainer import Adam, ImageFolder, MLflow, ModelSpec, Run, Training, WeightsAndBiases
from model_trainer.errors import ConfigError
from model_trainer.run import trackers
from model_trainer.run.callbacks import make_callbacks
from model_trainer.run.mlflow_keys import mlflow_keys
from model_trainer.run.tracker_callback import Status, TrackerCallback

RUN = Run(
    spec=ModelSpec.named("vgg19"),
    train_data=ImageFolder("data/train"),
    training=Training(epochs=3, optimizer=Adam(beta_1=0.8)),
    callbacks=(MLflow("http://127.0.0.1:5000", experiment="pets"), WeightsAndBiases("pets", mode="offline")),
)


@final
class Recorder(TrackerCallback):
    """A tracker in memory; while `is_down`, every access raises an error."""

    def __init__(self) -> None:
        super().__init__("Recorder")
        self.settings: dict[str, Any] = {}
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.closed: list[tuple[Status, dict[str, str]]] = []
        self.evaluated: dict[str, float] = {}
        self.refuses_settings = False
        self.is_down = False
        self.num_accesses = 0

    def start_run(self, name: str, folder: str) -> None:
        self._access()
        self.run_id = self.run_id or f"id-of-{name}"

    def log_settings(self, folder: str, settings: Mapping[str, Any], all_settings: Mapping[str, Any]) -> None:
        if self.refuses_settings:
            raise ValueError("no such name")
        self.settings = dict(settings)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._access()
        self.epochs.append((epoch, dict(metrics)))

    def end_run(self, status: Status, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        self._access()
        self.evaluated = dict(metrics)
        self.closed.append((status, dict(texts)))

    def _access(self) -> None:
        self.num_accesses += 1
        if self.is_down:
            raise ConnectionError("no answer from https://me:secret@example.org/api")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run-20261126-120000"
    path.mkdir()
    (path / "training_options.json").write_text(json.dumps({"versions": {"keras": "3.15.1"}, "run": RUN.to_dict()}))
    (path / "history.csv").write_text("epoch,loss\n1,0.5\n")
    return path


@pytest.fixture
def tracker() -> Recorder:
    recorder = Recorder()
    recorder.set_params({"epochs": 3})
    recorder.set_model(SimpleNamespace(stop_training=False))
    return recorder


@pytest.fixture
def clock() -> Iterator[mock.Mock]:
    with mock.patch.object(time, "monotonic", return_value=100.0) as now:
        yield now


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    with mock.patch.object(logging, "warning", lambda text, *values: messages.append(text % values)):
        yield messages


def test_trackers_survive_a_json_round_trip() -> None:
    assert Run.from_dict(json.loads(json.dumps(RUN.to_dict()))) == RUN


@pytest.mark.parametrize(("index", "extra"), [(0, "mlflow"), (1, "wandb")])
def test_a_tracker_that_is_not_installed_names_the_command_that_installs_it(index: int, extra: str) -> None:
    with (
        mock.patch.object(trackers, "find_spec", return_value=None),
        pytest.raises(ConfigError, match=rf"`callbacks.0` needs.*: \.venv/bin/pip install -e '\.\[{extra}\]'$"),
    ):
        make_callbacks(RUN.callbacks[index : index + 1])


def test_mlflow_without_a_server_or_a_database_asks_for_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    only_client = mock.patch.object(trackers, "find_spec", lambda name: object() if name == "mlflow" else None)
    with only_client, pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        MLflow().make()


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as raised:
        MLflow("https://me:secret@example.org")
    assert "secret" not in str(raised.value)


def test_a_tracker_gets_the_versions_and_the_settings_that_differ_from_their_defaults(
    tracker: Recorder, folder: Path
) -> None:
    tracker.set_run(RUN, folder)
    assert tracker.settings["versions.keras"] == "3.15.1"
    assert tracker.settings["spec.target_size"] == [224, 224, 3]
    names = {name for name in tracker.settings if name.startswith("training.")}
    assert names == {"training.epochs", "training.optimizer.beta_1"}


def test_a_tracker_gets_the_metrics_of_each_epoch_counted_from_1(tracker: Recorder, folder: Path) -> None:
    tracker.set_run(RUN, folder)
    for epoch in range(2):
        tracker.on_epoch_begin(epoch)
        tracker.on_epoch_end(epoch, {"loss": 0.5 - epoch / 10})
    assert tracker.epochs == [(1, {"loss": 0.5}), (2, {"loss": 0.4})]


def test_a_tracker_gets_the_small_files_at_the_end(tracker: Recorder, folder: Path) -> None:
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("a page")
    tracker.set_run(RUN, folder)
    tracker.on_train_end()
    ((_, texts),) = tracker.closed
    assert texts["report/index.html"] == "a page"
    assert set(texts) == {"history.csv", "training_options.json", "report/index.html"}


@pytest.mark.parametrize(
    ("num_epochs", "stop_training", "status"), [(3, False, "finished"), (2, True, "finished"), (2, False, "stopped")]
)
def test_the_status_distinguishes_finished_runs_from_runs_stopped_by_a_signal(
    tracker: Recorder, folder: Path, num_epochs: int, stop_training: bool, status: str
) -> None:
    tracker.set_run(RUN, folder)
    for epoch in range(num_epochs):
        tracker.on_epoch_begin(epoch)
        tracker.on_epoch_end(epoch, {})
    tracker.model.stop_training = stop_training
    tracker.on_train_end()
    tracker.on_run_end(folder, {})
    assert tracker.closed[0][0] == status


def test_a_resumed_run_continues_the_run_of_the_tracker(tracker: Recorder, folder: Path) -> None:
    tracker.set_run(RUN, folder)
    resumed = Recorder()
    resumed.set_state(json.loads(json.dumps(tracker.get_state())))
    resumed.set_run(RUN, folder.rename(folder.with_name("moved")))
    assert resumed.run_id == tracker.run_id == "id-of-run-20261126-120000"


def test_a_run_that_had_only_its_final_model_to_write_is_finished_in_the_tracker_too(
    tracker: Recorder, folder: Path
) -> None:
    tracker.set_state({"run_id": "abc", "num_epochs": 3, "unsent": []})
    tracker.set_run(RUN, folder)
    tracker.on_train_end()
    tracker.on_run_end(folder, {})
    assert tracker.closed[0][0] == "finished"


def finish_training(tracker: Recorder, folder: Path) -> None:
    tracker.set_run(RUN, folder)
    for epoch in range(3):
        tracker.on_epoch_begin(epoch)
        tracker.on_epoch_end(epoch, {"loss": 0.5})
    tracker.on_train_end()


def test_a_finished_run_stays_open_until_its_report_is_written(tracker: Recorder, folder: Path) -> None:
    finish_training(tracker, folder)
    assert tracker.closed == []
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("a page")
    tracker.on_run_end(folder, {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}, "auroc": {"value": None}})
    ((status, texts),) = tracker.closed
    assert (status, texts["report/index.html"]) == ("finished", "a page")
    assert tracker.evaluated == {
        "evaluation/accuracy": 0.8,
        "evaluation/accuracy_low": 0.7,
        "evaluation/accuracy_high": 0.9,
    }


def test_a_run_is_ended_once(tracker: Recorder, folder: Path) -> None:
    finish_training(tracker, folder)
    tracker.on_run_end(folder, {})
    tracker.on_run_end(folder, {})
    assert len(tracker.closed) == 1


def test_a_stopped_run_does_not_wait_for_a_report(tracker: Recorder, folder: Path) -> None:
    tracker.set_run(RUN, folder)
    tracker.on_train_end()
    assert [status for status, _ in tracker.closed] == ["stopped"]
    tracker.on_run_end(folder, {})
    assert len(tracker.closed) == 1


def test_a_tracker_does_not_keep_the_network_in_memory_during_the_evaluation(tracker: Recorder, folder: Path) -> None:
    finish_training(tracker, folder)
    assert tracker.model is None


def test_metrics_are_recorded_if_the_settings_are_refused(tracker: Recorder, folder: Path, warnings: list[str]) -> None:
    tracker.refuses_settings = True
    finish_training(tracker, folder)
    tracker.on_run_end(folder, {})
    assert len(tracker.epochs) == 3
    assert [status for status, _ in tracker.closed] == ["finished"]
    (warning,) = warnings
    assert warning.startswith("Recorder has not recorded the settings of this run; training continues, and metrics are")
    assert warning.endswith("(ValueError: no such name)")


def test_settings_that_arrived_too_early_are_recorded_at_the_end(
    tracker: Recorder, folder: Path, warnings: list[str]
) -> None:
    tracker.refuses_settings = True
    finish_training(tracker, folder)
    tracker.refuses_settings = False
    tracker.on_run_end(folder, {})
    assert tracker.settings["training.epochs"] == 3


@pytest.mark.parametrize("damage", ["metrics", "file"])
def test_a_run_is_ended_even_if_something_is_refused_or_cannot_be_read(
    tracker: Recorder, folder: Path, warnings: list[str], damage: str
) -> None:
    finish_training(tracker, folder)
    if damage == "metrics":
        tracker._unsent.append((4, {"a name that is refused": 0.5}))
        tracker.log_epoch = mock.Mock(side_effect=ValueError("refused"))  # type: ignore[method-assign]
    else:
        (folder / "history.csv").write_bytes(b"\xff")
    tracker.on_run_end(folder, {})
    assert [status for status, _ in tracker.closed] == ["finished"]
    assert warnings[0].startswith("Recorder has not recorded all of this run; the output folder has everything.")


def test_mlflow_keys_have_only_characters_that_mlflow_accepts() -> None:
    # As its message says: alphanumerics, underscores, dashes, periods, spaces, colons and slashes.
    keys = mlflow_keys(["weights.Häuser (alt) [x]", "a-b_c.d e:f/g", "x" * 300, "/a", "a//b", "../c", ".", ""])
    assert list(keys.values()) == [
        "weights.H_user _alt_ _x_", "a-b_c.d e:f/g", "x" * 250, "__a", "_a__b", "_.._c", "_.", "_"
    ]  # fmt: skip


def test_names_with_the_same_mlflow_key_are_numbered() -> None:
    names = ["cat?", "cat_", "cat!", "y" * 300, "y" * 301]
    keys = mlflow_keys(names)
    assert [keys[name] for name in names] == ["cat__2", "cat_", "cat__3", "y" * 250, "y" * 248 + "_2"]


def test_metrics_that_could_not_be_sent_are_sent_with_those_of_a_later_epoch(
    tracker: Recorder, folder: Path, clock: mock.Mock, warnings: list[str]
) -> None:
    tracker.is_down = True
    tracker.set_run(RUN, folder)
    tracker.on_epoch_end(0, {"loss": 0.5})
    resumed = Recorder()
    resumed.set_state(json.loads(json.dumps(tracker.get_state())))
    resumed.set_run(RUN, folder)
    resumed.on_epoch_end(1, {"loss": 0.4})
    assert resumed.epochs == [(1, {"loss": 0.5}), (2, {"loss": 0.4})]


def test_a_tracker_that_does_not_answer_gives_one_warning_without_passwords(
    tracker: Recorder, folder: Path, clock: mock.Mock, warnings: list[str]
) -> None:
    tracker.is_down = True
    tracker.set_run(RUN, folder)
    for epoch in range(3):
        tracker.on_epoch_end(epoch, {"loss": 0.5})
    tracker.on_train_end()
    (warning,) = warnings
    assert warning.startswith("Recorder does not record this run at the moment; training continues")
    assert "secret" not in warning
    tracker.on_run_end(folder, {})
    assert tracker.num_accesses == 5


def test_waiting_for_a_tracker_takes_at_most_a_fiftieth_of_the_time(
    tracker: Recorder, folder: Path, clock: mock.Mock, warnings: list[str]
) -> None:
    tracker.is_down = True
    clock.side_effect = [100.0, 110.0]  # the first attempt takes 10 seconds
    tracker.set_run(RUN, folder)
    for now, num_accesses in ((609.0, 1), (611.0, 2)):
        clock.side_effect, clock.return_value = None, now
        tracker.on_epoch_end(0, {"loss": 0.5})
        assert tracker.num_accesses == num_accesses


def test_a_tracker_that_was_not_given_a_run_records_nothing(tracker: Recorder) -> None:
    # As in all processes but the chief.
    tracker.on_epoch_begin(0)
    tracker.on_epoch_end(0, {"loss": 0.5})
    tracker.on_train_end()
    tracker.on_run_end(PurePath("run"), {})
    tracker.on_train_failed()
    assert not tracker.num_accesses
