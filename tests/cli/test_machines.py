"""`train` on several machines and under a supervisor, as real processes."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_trainer.cli.main import app
from model_trainer.errors import ConfigError
from model_trainer.testing import free_addresses

pytestmark = pytest.mark.long

RUN = """
import os, signal
import model_trainer.quiet_tensorflow
import keras
from model_trainer import *

class KilledOnce(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        # When epoch 1 has ended, the checkpoint of epoch 0 is certainly on the disk.
        if epoch == 2 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

run = Run(
    name="small",
    spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
    weights=None,
    train_data=ImageFolder(TRAIN),
    augment=(),
    callbacks=(KilledOnce(),) if os.environ.get("KILL") else (),
    training=Training(epochs=3, batch_size=5, precision="float32"),
    hardware=Hardware(platform="cpu"),
)
"""


@pytest.fixture
def folder(tmp_path: Path, colors: Path) -> Path:
    (tmp_path / "small.py").write_text(RUN.replace("TRAIN", repr(str(colors / "train"))))
    return tmp_path


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "model_trainer", "train", "small.py", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow  # cluster/test_supervisor.py tests the supervisor alone, test_killed.py the resuming
def test_restarts_continue_the_run_that_was_killed_and_not_an_older_one(folder: Path) -> None:
    older = folder / "output" / "small-20200101-000000"
    older.mkdir(parents=True)
    (older / "training_options.json").write_text("{}")
    process = start(folder, "--restarts", "2", KILL="1")
    _, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    assert f"Training ended with {128 + signal.SIGKILL}" in error
    assert "restart 1 of 2" in error
    assert "resumed at step 0 of epoch" in error
    (output,) = (path for path in (folder / "output").iterdir() if path != older)
    rows = list(csv.DictReader(io.StringIO((output / "history.csv").read_text())))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


@pytest.mark.slow  # training/test_agreement.py tests processes that train together, without the command
def test_two_machines_train_together_and_their_output_is_labeled(folder: Path) -> None:
    hosts = ",".join(free_addresses(2))
    arguments = ["--set", "training.epochs=1", "--hosts", hosts, "--host-index"]
    processes = [start(folder, *arguments, str(index)) for index in range(2)]
    outputs = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for number, (_, error) in enumerate(outputs):
        assert f"[host {number}] Training on 2 CPUs of 2 processes" in error
    assert "Results: output/small-" in outputs[0][0]
    assert outputs[1][0] == ""
    assert len(list((folder / "output").iterdir())) == 1


def test_a_host_index_out_of_range_is_refused(folder: Path) -> None:
    arguments = ["train", str(folder / "small.py"), "--hosts", "a:1,b:2", "--host-index", "2"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == (
        "`--host-index` should be 0 to 1, as `--hosts` names 2 processes, got 2. It counts from 0."
    )
