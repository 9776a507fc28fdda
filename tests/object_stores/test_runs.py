"""A run whose output folder is in an object store: it trains, is resumed on another machine, and is read from there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # of its web page

from model_trainer import Run, evaluate, load_model, predict
from model_trainer.errors import DataError
from model_trainer.report.after_training import report_run
from model_trainer.report.report import write_report
from model_trainer.report.runs import list_runs
from model_trainer.serving.loading import state_of
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import locks
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.training import epochs
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.train import train_model
from tests.object_stores.conftest import Weed
from tests.object_stores.test_locks import put_lock

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs")

MakeRun = Callable[..., Run]


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connections, caches and processes of a machine that has never seen the run."""
    monkeypatch.delitem(files._MOUNTED, "s3", raising=False)
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(locks, "_pids", lambda: "another machine")
    configuration.current.cache_clear()


def objects(weed: Weed, folder: Any) -> dict[str, bytes]:
    """All objects below a folder, as another program sees them."""
    bucket, _, key = str(folder).removeprefix("s3://").partition("/")
    client = weed.client()
    names = [each["Key"] for each in client.list_objects_v2(Bucket=bucket, Prefix=f"{key}/")["Contents"]]
    read = {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}
    return {name.removeprefix(f"{key}/"): content for name, content in read.items()}


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Calls `action` in the `number`th training or validation step."""
    original, calls = MetricAccumulator.add, []

    def add(self: MetricAccumulator, sums: Any) -> None:
        calls.append(1)
        if len(calls) == number:
            action()
        original(self, sums)

    monkeypatch.setattr(MetricAccumulator, "add", add)


@pytest.fixture(scope="module")
def finished(
    weed: Weed, declare_run: MakeRun, short_pipeline: None, plain_graphs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a finished run; do not change it."""
    client = weed.client()
    client.create_bucket(Bucket="finished")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in weed.environ.items():
            patch.setenv(name, value)
        patch.delitem(files._MOUNTED, "s3", raising=False)
        configuration.current.cache_clear()
        run = declare_run(output_dir="s3://finished/output")
        result = train_model(run, report_follows=True)
        from rich.console import Console

        from model_trainer.report.after_training import announce_report

        report_run(result, run, Console(stderr=True))
        announce_report(result)
    configuration.current.cache_clear()
    yield str(result.path)
    files._MOUNTED.pop("s3", None)


# What arrives.


@pytest.mark.usefixtures("s3")
def test_models_report_checkpoints_and_logs_arrive(finished: str, weed: Weed) -> None:
    names = set(objects(weed, finished))
    assert names >= {
        "final_model.hdf5", "model_max_acc.hdf5", "model_min_loss.hdf5", "model_spec.json", "training_options.json",
        "history.csv", "logs/train.log", "logs/metrics.jsonl", "evaluation/evaluation.json", "report/index.html",
        "manifest.json",
    }  # fmt: skip
    assert {name.rpartition("/")[2] for name in names if name.startswith("checkpoints/epoch-")} == {
        "arrays.bin", "state.json", "hashes.json"
    }  # fmt: skip


@pytest.mark.usefixtures("s3")
def test_nothing_temporary_is_left(finished: str, weed: Weed) -> None:
    names = [name.rpartition("/")[2] for name in objects(weed, finished)]
    assert not [name for name in names if name.startswith(".") and name != ".folder"]
    assert "Uploads" not in weed.client().list_multipart_uploads(Bucket="finished")


@pytest.mark.usefixtures("s3")
def test_the_manifest_lists_every_file_with_size_and_sha_256(finished: str, weed: Weed) -> None:
    there = objects(weed, finished)
    manifest = json.loads(there["manifest.json"])
    assert manifest["finished"] is True
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in there.items()
        if name != "manifest.json" and not name.startswith("checkpoints/") and not name.endswith(".folder")
    }


@pytest.mark.usefixtures("s3")
def test_the_log_in_the_store_has_every_line(finished: str, weed: Weed) -> None:
    log = objects(weed, finished)["logs/train.log"].decode()
    assert log.index("Reading the data") < log.index("epoch 1/1") < log.index("[metric] epoch=1")


@pytest.mark.usefixtures("s3")
def test_tensorboard_reads_the_events(finished: str, weed: Weed, tmp_path: Path) -> None:
    for name, content in objects(weed, finished).items():
        if "tfevents" in name:
            (tmp_path / Path(name).name).write_bytes(content)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("epoch/val_loss")] == [4]
    assert events.Tags()["images"]


# Who reads it.


@pytest.mark.usefixtures("s3")
def test_predict_evaluate_and_weights_take_a_url(finished: str, make_run: MakeRun, colours: Path, weed: Weed) -> None:
    image = next((colours / "val" / "red").glob("*.png"))
    model = objects(weed, finished)["model_max_acc.hdf5"]
    local = colours.parent / "copy.hdf5"
    local.write_bytes(model)
    assert predict(finished, image)[0]["predictions"] == predict(local, image)[0]["predictions"]
    assert evaluate(finished, colours / "val").accuracy == evaluate(local, colours / "val").accuracy
    assert load_model(f"{finished}/model_max_acc.hdf5").classes == ("blue", "green", "red")


@pytest.mark.usefixtures("s3")
def test_a_run_starts_with_the_weights_at_a_url(finished: str, make_run: MakeRun, eager_steps: None) -> None:
    weights = f"{finished}/final_model.hdf5"
    result = train_model(make_run(weights=weights, training__learning_rate=1e-9))
    options = json.loads((result.path / "training_options.json").read_text())
    assert options["weights_used"] == weights
    for ours, theirs in zip(
        load_model(result.path).model.trainable_weights, load_model(finished).model.trainable_weights, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.usefixtures("s3")
def test_a_report_and_the_table_of_runs_are_made_in_the_store(finished: str, weed: Weed) -> None:
    assert str(write_report(finished)) == f"{finished}/report/index.html"
    (run,) = list_runs("s3://finished/output")
    assert (run.state, run.num_epochs, run.problem) == ("finished", 1, "")


@pytest.mark.usefixtures("s3")
def test_the_manifest_stays_right_when_the_report_is_written_again(finished: str, weed: Weed) -> None:
    write_report(finished)
    there = objects(weed, finished)
    listed = json.loads(there["manifest.json"])["files"]
    assert listed["report/index.html"]["sha256"] == hashlib.sha256(there["report/index.html"]).hexdigest()
    assert set(listed) == {
        name
        for name in there
        if not name.startswith(("manifest.json", "checkpoints/")) and not name.endswith(".folder")
    }


@pytest.mark.usefixtures("s3")
def test_a_server_sees_that_a_model_in_the_store_has_changed(bucket: str) -> None:
    files.write(f"{bucket}/run/model_max_acc.hdf5", b"1")
    before = state_of(f"{bucket}/run")
    assert before
    assert state_of(f"{bucket}/run") == before
    files.write(f"{bucket}/run/model_max_acc.hdf5", b"12")
    assert state_of(f"{bucket}/run") != before


# Half a run.


@pytest.mark.usefixtures("eager_steps")
def test_a_stopped_run_is_not_taken_for_a_finished_one(
    make_run: MakeRun, bucket: str, s3: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = train_model(make_run(training__epochs=2, output_dir=f"{bucket}/output"))
    assert result.stopped == "SIGTERM"
    assert json.loads(objects(s3, result.path)["manifest.json"])["finished"] is False
    with pytest.raises(DataError, match=r"is not finished, .* --resume continues it.* name its file: s3://.*\.hdf5"):
        load_model(result.path)
    assert load_model(result.path / "model_max_acc.hdf5").classes == ("blue", "green", "red")


def test_a_model_that_was_copied_in_part_is_named(finished: str, weed: Weed, s3: Weed, bucket: str) -> None:
    for name in ("manifest.json", "final_model.hdf5", "model_max_acc.hdf5"):
        files.copy(f"{finished}/{name}", f"{bucket}/copy/{name}")
    assert load_model(f"{bucket}/copy").classes
    files.write(f"{bucket}/copy/model_max_acc.hdf5", files.read(f"{finished}/model_max_acc.hdf5")[:-1])
    with pytest.raises(DataError, match="model_max_acc.hdf5 has .* bytes, but .* not copied completely"):
        load_model(f"{bucket}/copy")


# Another machine.


@pytest.mark.usefixtures("eager_steps")
def test_another_machine_continues_to_the_same_bits(
    make_run: MakeRun, bucket: str, s3: Weed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_model(make_run(training__epochs=2))
    run = make_run(training__epochs=2, output_dir=f"{bucket}/output")
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = train_model(run)
    assert stopped.stopped == "SIGTERM"
    another_machine(monkeypatch, tmp_path)
    result = train_model(run, resume=True)
    assert result.path == stopped.path
    assert [row["loss"] for row in result.history] == [row["loss"] for row in expected.history]
    trained, same = load_model(result.path), load_model(expected.path)
    for ours, theirs in zip(trained.model.get_weights(), same.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert json.loads(objects(s3, result.path)["manifest.json"])["finished"] is True


@pytest.mark.usefixtures("eager_steps")
def test_a_run_that_was_taken_over_ends_with_75_and_writes_nothing_more(
    make_run: MakeRun, bucket: str, s3: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: dict[str, bytes] = {}

    def lose() -> None:
        (run,) = files.names_in(f"{bucket}/output")
        put_lock(s3, f"{bucket}/output/{run}")
        (lock,) = files.storage_of(bucket).locks._held  # type: ignore[attr-defined]
        with pytest.raises(LostLockError):
            lock.renew()
        there.update(objects(s3, f"{bucket}/output"))

    at_step(monkeypatch, 3, lose)
    monkeypatch.setattr(epochs.EpochProgress, "advance", lambda *arguments: True)  # as after a second
    with pytest.raises(LostLockError) as raised:
        train_model(make_run(output_dir=f"{bucket}/output"))
    assert raised.value.exit_code == 75
    files.storage_of(bucket)._appends.flush_all()  # type: ignore[attr-defined]
    assert objects(s3, f"{bucket}/output") == there
