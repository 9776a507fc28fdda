"""Runs in an object store whose process or server is killed repeatedly end with the same models as others."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_trainer import Run
from model_trainer.errors import UnavailableError
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import locks
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.train import train_model
from tests.object_stores.conftest import Weed, serving
from tests.object_stores.test_runs import arrays_of, at_step, objects

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")]

MakeRun = Callable[..., Run]
MODELS = ("model_max_acc.hdf5", "model_min_loss.hdf5", "final_model.hdf5")

# Each training runs in a fork of a process that has imported everything but has not run TensorFlow yet.
PROGRAM = """
import os, signal, sys, json
from pathlib import Path
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import model_trainer.quiet_tensorflow
import tensorflow as tf
import boto3, obstore
from model_trainer import *
from model_trainer.training import run_folder, train
from model_trainer.training.checkpoints import saver

images, bucket, kills = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
saver.FIRST_AFTER_SECONDS, saver.MAX_TIME_FRACTION = 0.0, 1e9  # as often as possible
run_folder.draw_curves = lambda *arguments: None  # loads matplotlib, in every process


def train_in_fork(output, kill=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        tf.config.run_functions_eagerly(True)
        calls = []
        for name in ("put", "delete", "copy"):
            def counted(*arguments, original=getattr(obstore, name), **options):
                calls.append(1)
                if len(calls) == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)
            setattr(obstore, name, counted)
        train.train_model(Run(
            name="killed",
            spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
            weights=None,
            train_data=ImageFolder(images / "train"),
            val_data=ImageFolder(images / "val"),
            training=Training(epochs=3, batch_size=4, learning_rate=0.02, optimizer=Adam(), deterministic=True,
                              precision="float32"),
            output_dir=f"s3://{bucket}/{output}",
        ), resume=True)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)


print(json.dumps([train_in_fork("whole"), *(train_in_fork("killed", kill) for kill in kills), train_in_fork("killed")]))
"""


def newest_run(weed: Weed, folder: str) -> dict[str, bytes]:
    """The objects of the last run in a folder; a run killed before it wrote its options is not resumed but replaced."""
    *_, name = files.names_in(folder)
    return objects(weed, f"{folder}/{name}")


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_run_ends_with_the_models_of_an_uninterrupted_one(
    s3: Weed, bucket: str, colors: Path
) -> None:
    kills = [6, 17, 23, 29, 36]
    command = [sys.executable, "-c", PROGRAM, str(colors), bucket[5:], json.dumps(kills)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, *(-9 for _ in kills), 0], done.stderr[-3000:]
    whole, killed = newest_run(s3, f"{bucket}/whole"), newest_run(s3, f"{bucket}/killed")
    # Which checkpoints exist besides the newest depends on how long saving takes.
    newest = max(name.split("/")[1] for name in whole if name.startswith("checkpoints/"))
    expected = {name for name in whole if not name.startswith("checkpoints/") or newest in name}
    assert killed.keys() >= {name for name in expected if "tfevents" not in name}
    for name in MODELS:
        assert arrays_of(killed[name]) == arrays_of(whole[name])
    for name, content in json.loads(killed["manifest.json"])["files"].items():
        assert content["bytes"] == len(killed[name])
    assert not [name for name in killed if ".partial" in name or ".replaced" in name or name.endswith(".lock")]


@pytest.fixture
def short_lived(tmp_path: Path, s3: Weed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weed]:
    """A server for this test alone, which may kill it; requests are retried for `SECONDS["retry"]`."""
    current = configuration.current
    monkeypatch.setattr(
        configuration, "current", functools.cache(lambda: replace(current(), retry_seconds=SECONDS["retry"]))
    )
    with serving(tmp_path / "weed") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        current.cache_clear()
        server.client().create_bucket(Bucket="outage")
        yield server
    files._MOUNTED.pop("s3", None)


SECONDS = {"retry": 2.0}


@pytest.fixture
def whole(make_run: MakeRun) -> dict[str, bytes]:
    """The models of a run on the disk."""
    path = train_model(make_run(training__epochs=2)).path
    return {name: (path / name).read_bytes() for name in MODELS}


def test_a_short_outage_of_the_server_does_not_interrupt_the_run(
    short_lived: Weed, make_run: MakeRun, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, "retry", 60.0)
    starting = threading.Thread(target=short_lived.start)
    original = RunFolder.save_best

    def save_best(*arguments: Any) -> None:
        if starting.ident is None:
            starting.start()  # takes a second, during which the model is being uploaded
        original(*arguments)

    monkeypatch.setattr(RunFolder, "save_best", save_best)
    at_step(monkeypatch, 3, short_lived.kill)
    result = train_model(make_run(training__epochs=2, output_dir="s3://outage/output"))
    starting.join()
    remote = objects(short_lived, result.path)
    for name in MODELS:
        assert arrays_of(remote[name]) == arrays_of(whole[name])
    assert json.loads(remote["manifest.json"])["finished"] is True


def test_a_long_outage_ends_the_run_with_75_and_another_machine_resumes_it(
    short_lived: Weed, make_run: MakeRun, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(training__epochs=2, output_dir="s3://outage/output")
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 10, short_lived.kill)
        with pytest.raises(UnavailableError, match=r"does not answer.*--resume") as raised:
            train_model(run)
    assert raised.value.exit_code == 75
    short_lived.start()
    monkeypatch.setitem(SECONDS, "retry", 60.0)  # the server answers with errors until it has started completely
    configuration.current.cache_clear()
    monkeypatch.delitem(files._MOUNTED, "s3")
    monkeypatch.setattr(locks, "_pids", lambda: "another machine")
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    remote = objects(short_lived, train_model(run, resume=True).path)
    for name in MODELS:
        assert arrays_of(remote[name]) == arrays_of(whole[name])
