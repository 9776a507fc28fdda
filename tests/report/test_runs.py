"""The list of all runs in a folder, from their files."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_trainer import SGD, ImageFolder, ModelSpec, Run, Training
from model_trainer.errors import ConfigError, DataError
from model_trainer.report.runs import list_runs
from model_trainer.report.runs_table import differing_settings, settings_of_all, sorted_runs

RUN = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"), training=Training(epochs=3))
HISTORY = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n"
ROWS = HISTORY + "1,0.9,0.5,0.8,0.6,0.1,4\n2,0.5,0.9,0.7,0.75,0.1,4\n3,0.1,0.99,0.9,0.7,0.1,4\n"


def write_run(
    folder: Path,
    name: str = "pets-20261126-120000",
    run: Run = RUN,
    history: str = ROWS,
    log: str = "",
    finished: bool | None = None,
    evaluation: object = None,
) -> Path:
    path = folder / name
    (path / "logs").mkdir(parents=True)
    (path / "training_options.json").write_text(json.dumps({"versions": {}, "run": run.to_dict()}))
    if history:
        (path / "history.csv").write_text(history)
    (path / "logs" / "train.log").write_text(log)
    if finished is not None:
        checkpoint = path / "checkpoints" / "epoch-00003-step-0000000"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"finished": finished}))
    if evaluation is not None:
        (path / "evaluation").mkdir()
        (path / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    return path


def evaluation_of(accuracy: float | None, **interval: float) -> dict[str, Any]:
    metrics = {"accuracy": {"value": accuracy, **interval}, "log_loss": {"value": 0.3, "low": None, "high": None}}
    return {"version": 1, "main_metric": "accuracy", "metrics": metrics}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A run in training: a process holds a lock on its folder of logs."""
    path = write_run(tmp_path, finished=False)
    descriptor = os.open(path / "logs", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield path
    os.close(descriptor)


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name in ("b-20261126-120000", "a-20261126-120000-2", "c-20251126-130000", "a-20261126-120001"):
        write_run(tmp_path, name)
    names = [run.name for run in list_runs(tmp_path)]
    assert names == ["a-20261126-120001", "b-20261126-120000", "a-20261126-120000-2", "c-20251126-130000"]


def test_folders_that_are_not_runs_are_skipped(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "README.md").write_text("")
    assert [run.name for run in list_runs(tmp_path)] == ["pets-20261126-120000"]


def test_runs_within_the_folder_of_a_run_are_listed_by_their_path(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    write_run(path, "fold-1")
    assert {run.name for run in list_runs(tmp_path)} == {"pets-20261126-120000", "pets-20261126-120000/fold-1"}


def test_an_output_folder_lists_itself(tmp_path: Path) -> None:
    assert [run.name for run in list_runs(write_run(tmp_path))] == ["pets-20261126-120000"]


def test_the_best_epoch_of_the_history_is_that_of_the_main_validation_metric(tmp_path: Path) -> None:
    write_run(tmp_path)
    (run,) = list_runs(tmp_path)
    assert (run.metric, run.value, run.source, run.best_epoch) == ("val_accuracy", 0.75, "history", 2)
    assert run.metrics == {"val_loss": 0.7, "val_accuracy": 0.75}


def test_of_epochs_with_equal_metrics_the_lower_loss_decides(tmp_path: Path) -> None:
    write_run(tmp_path, history=HISTORY + "1,0,1,0.5,1,0.1,4\n2,0,1,0.2,1,0.1,4\n3,0,1,0.3,1,0.1,4\n")
    assert list_runs(tmp_path)[0].best_epoch == 2


def test_without_validation_the_best_epoch_is_that_of_training(tmp_path: Path) -> None:
    write_run(tmp_path, history="epoch,loss,map,exact\n1,0.5,0.8,0.1\n2,0.4,0.7,0.2\n")
    (run,) = list_runs(tmp_path)
    assert (run.metric, run.value, run.best_epoch) == ("map", 0.8, 1)


def test_nan_is_never_the_best(tmp_path: Path) -> None:
    write_run(tmp_path, history=HISTORY + "1,0,1,0.5,nan,0.1,4\n2,0,1,0.2,0.5,0.1,4\n3,0,1,0.3,nan,0.1,4\n")
    assert list_runs(tmp_path)[0].value == 0.5


def test_the_metrics_of_an_evaluation_take_precedence_over_the_history(tmp_path: Path) -> None:
    write_run(tmp_path, evaluation=evaluation_of(0.8, low=0.7, high=0.9))
    (run,) = list_runs(tmp_path)
    assert (run.metric, run.value, run.interval, run.source) == ("accuracy", 0.8, (0.7, 0.9), "evaluation")
    assert run.metrics == {"accuracy": 0.8, "log_loss": 0.3, "val_loss": 0.7, "val_accuracy": 0.75}


def test_an_undefined_metric_is_nan_and_null_in_json(tmp_path: Path) -> None:
    write_run(tmp_path, evaluation=evaluation_of(None))
    (run,) = list_runs(tmp_path)
    assert math.isnan(run.value)
    assert json.loads(json.dumps(run.to_dict(), allow_nan=False))["value"] is None


@pytest.mark.parametrize(
    ("finished", "log", "state"),
    [
        (True, "", "finished"),
        (False, "2026-11-26 12:00:00,000 WARNING SIGTERM: stopping after this step and saving.\n", "stopped"),
        (None, "2026-11-26 12:00:00,000 INFO epoch 1/3\n", "stopped"),
        (False, "2026-11-26 12:00:00,000 ERROR Training diverged: nan.\nLower the rate.\n", "failed"),
        (False, "2026-11-26 12:00:00,000 ERROR x\n2026-11-26 12:10:00,000 INFO resumed at step 0\n", "stopped"),
    ],
)
def test_the_state_of_a_run_is_inferred_from_its_checkpoint_and_log(
    tmp_path: Path, finished: bool | None, log: str, state: str
) -> None:
    write_run(tmp_path, finished=finished, log=log)
    assert list_runs(tmp_path)[0].state == state


def test_a_run_whose_folder_is_locked_is_running(locked: Path) -> None:
    assert list_runs(locked)[0].state == "running"


def test_a_run_without_an_epoch_has_no_metric(tmp_path: Path) -> None:
    write_run(tmp_path, history="")
    (run,) = list_runs(tmp_path)
    assert (run.num_epochs, run.max_epochs, run.metric, run.source) == (0, 3, "", "")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("training_options.json", b"{"),
        ("training_options.json", b'{"run": []}'),
        ("training_options.json", b'{"run": {"training": {"epochs": 1e999}}}'),
        ("training_options.json", b"[" * 100_000),
        ("history.csv", b"epoch,seconds\n1,4\n"),
        ("history.csv", b"epoch,val_loss\ninf,0.5\n"),
        ("history.csv", b"epoch,loss\n1,high\n"),
        ("history.csv", b"epoch,val_accuracy\n1\n"),
        ("history.csv", b"\xff\xfe\x00"),
        ("evaluation/evaluation.json", b'{"metrics": {}}'),
        ("evaluation/evaluation.json", b"null"),
        ("checkpoints/epoch-00003-step-0000000/state.json", b""),
    ],
)
def test_a_damaged_file_is_named_and_the_other_runs_are_listed(tmp_path: Path, file: str, content: bytes) -> None:
    write_run(tmp_path, "b-20261126-120000")
    path = write_run(tmp_path, "a-20261126-120000", finished=True, evaluation=evaluation_of(0.5))
    (path / file).write_bytes(content)
    whole, damaged = list_runs(tmp_path)
    assert whole.problem == ""
    name = "the newest checkpoint" if file.startswith("checkpoints") else file
    assert damaged.problem.startswith(f"{name} cannot be read (")


def test_a_folder_whose_name_has_an_impossible_time_is_listed(tmp_path: Path) -> None:
    write_run(tmp_path, "b-20261126-120000")
    write_run(tmp_path, "a-99999999-999999")
    _, odd = list_runs(tmp_path)
    assert (odd.name, odd.started, odd.max_epochs) == ("a-99999999-999999", None, 3)
    assert odd.problem == "the time in the folder's name cannot be read (ValueError)"


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no run in"):
        list_runs(tmp_path)
    with pytest.raises(DataError, match="There is no folder"):
        list_runs(tmp_path / "missing")


def test_only_the_settings_that_differ_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", RUN.changed_all({"name": "b", "training.epochs": 5, "spec.target_size": (64, 64, 3)}))
    write_run(tmp_path, "c", RUN.changed("training.optimizer", SGD()))
    names = differing_settings(list_runs(tmp_path))
    assert names[:2] == ["spec.target_size", "training.epochs"]
    assert {"training.optimizer.type", "training.optimizer.momentum"} < set(names)
    assert all(name.startswith("training.optimizer.") for name in names[2:])


def test_for_different_objects_the_table_shows_only_their_type(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", RUN.changed("training.epochs", 5))
    write_run(tmp_path, "c", RUN.changed_all({"training.optimizer": SGD(), "train_data": RUN.train_data.take(3)}))
    runs = list_runs(tmp_path)
    shown = settings_of_all(runs, differing_settings(runs))
    assert shown == ["train_data.type", "training.epochs", "training.optimizer.type"]


def test_a_single_run_has_no_differing_settings(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert differing_settings(list_runs(tmp_path)) == []


@pytest.mark.parametrize(
    ("by", "order"),
    [("run", "abcd"), ("val_loss", "cabd"), ("-val_loss", "bacd"), ("-training.epochs", "bacd"), ("best", "abcd")],
)
def test_runs_are_sorted_by_column_metric_or_setting(tmp_path: Path, by: str, order: str) -> None:
    for name, loss, epochs in (("a", 0.5, 3), ("b", 0.9, 5), ("c", 0.1, 2)):
        history = f"epoch,val_loss,val_accuracy\n1,{loss},0.5\n"
        write_run(tmp_path, name, RUN.changed("training.epochs", epochs), history)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "training_options.json").write_text("damaged")
    runs = sorted(list_runs(tmp_path), key=lambda run: run.name)
    assert "".join(run.name for run in sorted_runs(runs, by)) == order


def test_numbers_are_sorted_before_strings(tmp_path: Path) -> None:
    for name, momentum in (("a", "auto"), ("b", 0.9), ("c", 0.5)):
        write_run(tmp_path, name, RUN.changed("network.batch_norm_momentum", momentum))
    runs = sorted_runs(list_runs(tmp_path), "network.batch_norm_momentum")
    assert [run.name for run in runs] == ["c", "b", "a"]


def test_an_unknown_name_to_sort_by_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(ConfigError, match="`--sort` .* Did you mean 'val_loss'"):
        sorted_runs(list_runs(tmp_path), "val_los")


def test_metrics_on_training_data_are_marked(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    content = evaluation_of(0.9) | {"data": {"split": "training"}}
    (path / "evaluation").mkdir(exist_ok=True)
    (path / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    assert list_runs(tmp_path)[0].source == "training data"
