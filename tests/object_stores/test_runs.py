"""Runs with an output folder in an object store: training, resuming on another machine, and reading the results."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_trainer import Run, evaluate, load_model, predict
from model_trainer.errors import DataError, StorageError
from model_trainer.model_files.weights import initialize_network
from model_trainer.report.after_training import announce_report, report_run
from model_trainer.report.report import write_report
from model_trainer.report.runs import list_runs
from model_trainer.serving.loading import state_of
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import locks
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.training import epochs
from model_trainer.training.checkpoints.store import read_newest
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.resume import check_not_continued
from model_trainer.training.train import train_model
from tests.object_stores.conftest import Weed
from tests.object_stores.test_locks import put_lock

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("short_pipeline", "plain_graphs")]

MakeRun = Callable[..., Run]


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Drops connections and caches and changes the machine's identity, as on a machine that never saw the run."""
    monkeypatch.delitem(files._MOUNTED, "s3", raising=False)
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(locks, "_pids", lambda: "another machine")
    configuration.current.cache_clear()


def objects(weed: Weed, folder: Any) -> dict[str, bytes]:
    """The contents of all objects in a folder by their relative keys, read with boto3."""
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


@contextlib.contextmanager
def in_store(weed: Weed) -> Iterator[None]:
    """The fixture `s3` as a context manager, for runs that several tests read; steps run eagerly."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
        for name, value in weed.environ.items():
            patch.setenv(name, value)
        patch.delitem(files._MOUNTED, "s3", raising=False)
        configuration.current.cache_clear()
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
        files._MOUNTED.pop("s3", None)
        configuration.current.cache_clear()


@pytest.fixture(scope="module")
def finished(weed: Weed, declare_run: MakeRun, short_pipeline: None, plain_graphs: None) -> str:
    """The URL of a finished run; tests must not change it."""
    weed.client().create_bucket(Bucket="finished")
    run = declare_run(output_dir="s3://finished/output", training__epochs=2)
    with in_store(weed):
        result = train_model(run, report_follows=True)
        report_run(result, run, Console(stderr=True))
        announce_report(result)
    return str(result.path)


@pytest.fixture(scope="module")
def stopped(weed: Weed, declare_run: MakeRun, short_pipeline: None, plain_graphs: None) -> str:
    """The URL of the same run, stopped in its second epoch; tests must not change it."""
    weed.client().create_bucket(Bucket="stopped")
    with in_store(weed), pytest.MonkeyPatch.context() as patch:
        at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        result = train_model(declare_run(output_dir="s3://stopped/output", training__epochs=2))
    assert result.stopped == "SIGTERM"
    return str(result.path)


# The objects in the store.


@pytest.mark.usefixtures("s3")
def test_models_report_checkpoints_and_logs_are_in_the_store(finished: str, weed: Weed) -> None:
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
def test_no_temporary_object_is_left(finished: str, weed: Weed) -> None:
    names = [name.rpartition("/")[2] for name in objects(weed, finished)]
    assert not [name for name in names if name.startswith(".") and name != ".folder"]
    assert "Uploads" not in weed.client().list_multipart_uploads(Bucket="finished")


@pytest.mark.usefixtures("s3")
def test_the_manifest_lists_every_file_with_size_and_sha_256(finished: str, weed: Weed) -> None:
    remote = objects(weed, finished)
    manifest = json.loads(remote["manifest.json"])
    assert manifest["finished"] is True
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in remote.items()
        if name != "manifest.json" and not name.startswith("checkpoints/") and not name.endswith(".folder")
    }


@pytest.mark.usefixtures("s3")
def test_the_log_in_the_store_has_every_line(finished: str, weed: Weed) -> None:
    log = objects(weed, finished)["logs/train.log"].decode()
    assert log.index("Reading the data") < log.index("epoch 1/2") < log.index("[metric] epoch=1")


@pytest.mark.usefixtures("s3")
def test_tensorboard_reads_the_events(finished: str, weed: Weed, tmp_path: Path) -> None:
    for name, content in objects(weed, finished).items():
        if "tfevents" in name:
            (tmp_path / Path(name).name).write_bytes(content)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("epoch/val_loss")] == [4, 8]
    assert events.Tags()["images"]


# Reading a run from the store.


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_predict_evaluate_and_load_model_accept_a_url(
    finished: str, make_run: MakeRun, colors: Path, weed: Weed
) -> None:
    image = next((colors / "val" / "red").glob("*.png"))
    model = objects(weed, finished)["model_max_acc.hdf5"]
    local = colors.parent / "copy.hdf5"
    local.write_bytes(model)
    assert predict(finished, image)[0]["predictions"] == predict(local, image)[0]["predictions"]
    assert evaluate(finished, colors / "val").accuracy == evaluate(local, colors / "val").accuracy
    assert load_model(f"{finished}/model_max_acc.hdf5").classes == ("blue", "green", "red")


@pytest.mark.usefixtures("s3")
def test_a_network_is_initialized_with_weights_from_a_url(finished: str, make_run: MakeRun) -> None:
    run, url = make_run(), f"{finished}/final_model.hdf5"
    initialized = initialize_network(run.spec, run.network, run.task, 3, url)
    assert initialized.weights == url
    trained = load_model(url).model.get_weights()
    for ours, theirs in zip(initialized.network.model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("s3")
def test_the_report_is_written_to_the_store_and_its_runs_are_listed(finished: str, weed: Weed) -> None:
    assert str(write_report(finished)) == f"{finished}/report/index.html"
    (run,) = list_runs("s3://finished/output")
    assert (run.state, run.num_epochs, run.problem) == ("finished", 2, "")


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_the_manifest_is_updated_when_the_report_is_written_again(finished: str, weed: Weed) -> None:
    write_report(finished)
    remote = objects(weed, finished)
    listed = json.loads(remote["manifest.json"])["files"]
    assert listed["report/index.html"]["sha256"] == hashlib.sha256(remote["report/index.html"]).hexdigest()
    assert set(listed) == {
        name
        for name in remote
        if not name.startswith(("manifest.json", "checkpoints/")) and not name.endswith(".folder")
    }


@pytest.mark.usefixtures("s3")
def test_a_changed_model_in_the_store_has_another_state(bucket: str) -> None:
    files.write(f"{bucket}/run/model_max_acc.hdf5", b"1")
    before = state_of(f"{bucket}/run")
    assert before
    assert state_of(f"{bucket}/run") == before
    files.write(f"{bucket}/run/model_max_acc.hdf5", b"12")
    assert state_of(f"{bucket}/run") != before


# Incomplete runs.


@pytest.mark.usefixtures("s3")
def test_a_stopped_run_is_not_loaded_as_a_finished_one(stopped: str) -> None:
    with pytest.raises(DataError, match=r"is not finished, .* --resume continues it.* name its file: s3://.*\.hdf5"):
        load_model(stopped)
    assert load_model(f"{stopped}/model_max_acc.hdf5").classes == ("blue", "green", "red")


def test_a_partially_copied_model_is_named(finished: str, weed: Weed, s3: Weed, bucket: str) -> None:
    for name in ("manifest.json", "final_model.hdf5", "model_max_acc.hdf5"):
        files.copy(f"{finished}/{name}", f"{bucket}/copy/{name}")
    assert load_model(f"{bucket}/copy").classes
    files.write(f"{bucket}/copy/model_max_acc.hdf5", files.read(f"{finished}/model_max_acc.hdf5")[:-1])
    with pytest.raises(DataError, match="model_max_acc.hdf5 has .* bytes, but .* not copied completely"):
        load_model(f"{bucket}/copy")


# Another machine.


@pytest.mark.usefixtures("eager_steps")
def test_resuming_on_another_machine_gives_bitwise_equal_models(
    finished: str, stopped: str, make_run: MakeRun, s3: Weed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stopped.replace("s3://stopped/", "s3://resumed/")
    s3.client().create_bucket(Bucket="resumed")
    for name, content in objects(s3, stopped).items():
        s3.client().put_object(Bucket="resumed", Key=f"{url.removeprefix('s3://resumed/')}/{name}", Body=content)
    another_machine(monkeypatch, tmp_path)
    run = make_run(training__epochs=2, output_dir="s3://resumed/output")
    result = train_model(run, resume=True)
    assert str(result.path) == url
    resumed, whole = objects(s3, url), objects(s3, finished)
    for name in ("model_max_acc.hdf5", "model_min_loss.hdf5", "final_model.hdf5"):
        assert arrays_of(resumed[name]) == arrays_of(whole[name])
    losses = [[row.split(",")[1:5] for row in each["history.csv"].decode().split()] for each in (resumed, whole)]
    assert losses[0] == losses[1]
    assert json.loads(resumed["manifest.json"])["finished"] is True


def arrays_of(hdf5: bytes) -> dict[str, bytes]:
    arrays = {}
    with h5py.File(io.BytesIO(hdf5)) as file:
        file.visititems(lambda name, item: arrays.update({name: item[...].tobytes()} if hasattr(item, "shape") else {}))
    return arrays


def test_a_run_that_was_resumed_since_its_checkpoint_was_read_is_not_continued(stopped: str, s3: Weed) -> None:
    path = files.as_path(stopped)
    newest = read_newest(path / "checkpoints")
    check_not_continued(path, newest)
    with pytest.raises(StorageError, match=r"Another process has continued s3://.* Repeat the command with --resume"):
        check_not_continued(path, None)


@pytest.mark.slow
@pytest.mark.usefixtures("s3", "eager_steps")
def test_a_run_in_the_store_is_bitwise_equal_to_one_on_disk(finished: str, weed: Weed, make_run: MakeRun) -> None:
    result = train_model(make_run(training__epochs=2))
    remote = objects(weed, finished)
    for name in ("model_max_acc.hdf5", "model_min_loss.hdf5", "final_model.hdf5"):
        assert arrays_of(remote[name]) == arrays_of((result.path / name).read_bytes())


@pytest.mark.slow
@pytest.mark.usefixtures("eager_steps")
def test_a_run_that_was_taken_over_ends_with_75_and_stops_writing(
    make_run: MakeRun, bucket: str, s3: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote: dict[str, bytes] = {}

    def lose() -> None:
        (run,) = files.names_in(f"{bucket}/output")
        put_lock(s3, f"{bucket}/output/{run}")
        (lock,) = files.storage_of(bucket).locks._held  # type: ignore[attr-defined]
        with pytest.raises(LostLockError):
            lock.renew()
        remote.update(objects(s3, f"{bucket}/output"))

    at_step(monkeypatch, 3, lose)
    monkeypatch.setattr(epochs.EpochProgress, "advance", lambda *arguments: True)  # as if a second had passed
    with pytest.raises(LostLockError) as raised:
        train_model(make_run(output_dir=f"{bucket}/output"))
    assert raised.value.exit_code == 75
    files.storage_of(bucket)._appends.flush_all()  # type: ignore[attr-defined]
    assert objects(s3, f"{bucket}/output") == remote
