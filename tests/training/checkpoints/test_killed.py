"""A run that is killed again and again ends with the same bits as one that was never killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from model_trainer.training.checkpoints.store import read_newest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # up to 23 trainings, one after another

# Each training is a fork of a process that has imported everything and started nothing.
PROGRAM = """
import os, signal, sys, json
from pathlib import Path
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import model_trainer.quiet_tensorflow
import tensorflow as tf
from model_trainer import *
from model_trainer.pipeline import dataset
from model_trainer.training import run_folder, train
from model_trainer.storage import local
from model_trainer.training.checkpoints import saver
from model_trainer.training.metric_accumulator import MetricAccumulator

folder, kills = Path(sys.argv[1]), json.loads(sys.argv[2])
epochs = 4 if len(kills) < 10 else 12
saver.FIRST_AFTER_SECONDS, saver.MAX_TIME_FRACTION = 0.0, 1e9  # as often as it can
run_folder.draw_curves = lambda *arguments: None  # loads matplotlib, in every process


class Counter(__import__("keras").callbacks.Callback):
    # The user's own callback with a state; on_train_begin resets it, as many do.
    def on_train_begin(self, logs=None):
        self.batches, self.losses = 0, []
    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])
        (folder / "counted.json").write_text(json.dumps([self.batches, self.losses]))
    def get_state(self):
        return {"batches": self.batches, "losses": self.losses}
    def set_state(self, state):
        self.batches, self.losses = state["batches"], list(state["losses"])


def run_in(output):
    return Run(
        name="killed",
        spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3],
                          "kwargs": {"batch_normalization": True, "dropout_rate": 0.2}}),
        weights=None,
        train_data=ImageFolder(folder / "colors" / "train"),
        val_data=ImageFolder(folder / "colors" / "val"),
        augment=(RandomResizedCrop(), RandomFlip(), MixUp()),
        network=Network(freeze=("conv1",), unfreeze=Unfreeze(after_epochs=2, learning_rate=0.01)),
        task=Classification(metrics=(Accuracy(), MacroRecall())),
        training=Training(epochs=epochs, batch_size=4, learning_rate=0.02, optimizer=Adam(), deterministic=True,
                          precision="float32", schedule=ReduceOnPlateau(patience=1), sampling=Equiprobable(),
                          ema_decay=0.9),
        callbacks=(EarlyStopping(monitor="val_accuracy", patience=epochs - 1, restore_best=True), Counter()),
        output_dir=str(output),
    )


def kill_at(target, number):
    # Replaces a function by one that kills the process at its `number`th call.
    owner, name = target
    calls, original = [], getattr(owner, name)
    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(owner, name, counted)


KILL_POINTS = {
    "step": (MetricAccumulator, "add"),  # training and validation steps
    "file": (local, "write_synced"),  # inside a save
    "rename": (local.os, "replace"),
    "model": (run_folder, "save_model"),
    "history": (run_folder.RunFolder, "write_history"),
}


def by_the_exact_path(start, stop, fast, exact):
    # As `short_pipeline` of conftest.py.
    plain = tf.autograph.experimental.do_not_convert
    return tf.data.Dataset.range(start, stop).map(plain(exact), num_parallel_calls=2, deterministic=True)


def train_in_fork(output, resume, kill=None):
    child = os.fork()
    if child == 0:
        try:
            # Operation by operation, as compiling takes most of the time; test_agreement.py resumes what is compiled.
            tf.config.run_functions_eagerly(True)
            if kill or not resume:  # both paths give the same bits; the end of the chain has both
                dataset.map_with_fallback = by_the_exact_path
            if kill:
                kill_at(KILL_POINTS[kill[0]], kill[1])
            train.train_model(run_in(output), resume=resume)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


codes = [train_in_fork(folder / "whole", False)]
(folder / "counted.json").rename(folder / "counted-whole.json")
for kill in kills:
    codes.append(train_in_fork(folder / "chain", True, kill))
codes.append(train_in_fork(folder / "chain", True))
codes.append(train_in_fork(folder / "chain", True))  # finished: nothing left to do
print(json.dumps(codes))
"""

# 20 kills, drawn with a seed; each process gets as far as its kill. The first three: a step, a model, a checkpoint.
KILLS = [
    *(("step", 3), ("model", 1), ("file", 2)),
    *(("rename", 3), ("history", 1), ("step", 6), ("step", 2), ("step", 7), ("file", 5)),
    *(("step", 1), ("step", 5), ("file", 1), ("step", 8), ("rename", 1), ("history", 2), ("step", 4)),
    *(("file", 3), ("step", 6), ("history", 1), ("step", 2)),
]


@pytest.fixture(scope="module", params=[3, pytest.param(len(KILLS), marks=pytest.mark.slow)])
def kills(request: pytest.FixtureRequest) -> list[tuple[str, int]]:
    return KILLS[: request.param]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, colors: Path, kills: list[tuple[str, int]]
) -> tuple[Path, list[int]]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "colors").symlink_to(colors)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def output_of(folder: Path, name: str) -> Path:
    (output,) = (folder / name).iterdir()  # one folder, however often it was resumed
    return output


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def test_every_kill_ended_its_process_and_the_other_runs_succeeded(
    trained: tuple[Path, list[int]], kills: list[tuple[str, int]]
) -> None:
    _, codes = trained
    assert codes == [0] + [-signal.SIGKILL] * len(kills) + [0, 0]


@pytest.mark.parametrize("name", ["final_model", "model_max_acc", "model_max_sensitivity", "model_min_loss"])
def test_model_files_hold_the_same_bits(trained: tuple[Path, list[int]], name: str) -> None:
    whole, chain = (arrays_in(output_of(trained[0], each) / f"{name}.hdf5") for each in ("whole", "chain"))
    assert whole.keys() == chain.keys()
    assert len(whole) > 8
    for array in whole:
        np.testing.assert_array_equal(whole[array], chain[array])


def test_optimizer_history_and_callbacks_are_the_same(trained: tuple[Path, list[int]]) -> None:
    whole, chain = (read_newest(output_of(trained[0], each) / "checkpoints") for each in ("whole", "chain"))
    assert whole is not None
    assert chain is not None
    assert (whole.epoch, whole.position, whole.state["finished"]) == (chain.epoch, chain.position, True)
    assert whole.arrays.keys() == chain.arrays.keys()
    assert any(name.startswith("optimizer/") for name in whole.arrays)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, chain.arrays[name], err_msg=name)
    for key in ("best", "callbacks", "unfrozen", "thresholds", "stop_training"):
        assert whole.state[key] == chain.state[key]
    assert whole.state["unfrozen"]
    for row, other in zip(whole.state["history"], chain.state["history"], strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_the_state_of_a_users_callback_continues(trained: tuple[Path, list[int]]) -> None:
    whole = json.loads((trained[0] / "counted-whole.json").read_text())
    assert json.loads((trained[0] / "counted.json").read_text()) == whole
    assert whole[0] == 4 * len(whole[1])


def test_each_step_is_logged_once(trained: tuple[Path, list[int]]) -> None:
    lines = (output_of(trained[0], "chain") / "logs" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines if json.loads(line)["kind"] == "epoch"]
    assert epochs == sorted(set(epochs))


def test_killed_saves_leave_no_partial_folders(trained: tuple[Path, list[int]]) -> None:
    left = [path for path in output_of(trained[0], "chain").rglob(".*") if "partial" in path.name]
    assert [path.name for path in left if path.is_dir()] == []
    assert len(os.listdir(output_of(trained[0], "chain") / "checkpoints")) == 2
