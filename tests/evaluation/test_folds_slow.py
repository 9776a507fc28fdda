"""Slow tests of k-fold training: killed processes, memory over many folds, and deliberately changed labels."""

from __future__ import annotations

import csv
import ctypes
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from model_trainer import ImageFolder, Run, train_folds
from model_trainer.training import folds as folds_module
from model_trainer.training.folds import train_fold_models
from model_trainer.training.folds_folder import FoldsFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = """
import os, signal, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import model_trainer.quiet_tensorflow
from model_trainer import *
from model_trainer.training import run_folder
from model_trainer.training.checkpoints import saver
from model_trainer.training.metric_accumulator import MetricAccumulator

run_folder.draw_curves = lambda *arguments: None
saver.FIRST_AFTER_SECONDS, saver.MAX_TIME_FRACTION = 0.0, 1e9  # a checkpoint as often as possible
output, resume, kill_at = sys.argv[1], sys.argv[2] == "resume", int(sys.argv[3])
calls, add = [], MetricAccumulator.add


def counted(*arguments, **options):
    calls.append(1)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(*arguments, **options)


MetricAccumulator.add = counted
run = Run(
    name="killed",
    spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
    weights=None,
    train_data=ImageFolder("train"),
    val_data=ImageFolder("val"),
    augment=(RandomFlip(),),
    network=Network(dropout_rate=0.3),
    training=Training(epochs=2, batch_size=4, learning_rate=0.02, precision="float32", deterministic=True),
    output_dir=output,
)
train_folds(run, 3, resume=resume, report=False)
"""


def test_killed_and_resumed_folds_are_bitwise_equal_to_uninterrupted_ones(colors: Path) -> None:
    def train(output: str, mode: str, kill_at: int = 0) -> int:
        arguments = [sys.executable, "-c", PROGRAM, output, mode, str(kill_at)]
        return subprocess.run(arguments, cwd=colors, check=False, timeout=600).returncode

    folder = colors.parent / "folds-killed"
    # 4 steps of training and 2 of validation in an epoch, so the 16th is in the first epoch of the second fold.
    codes = [train(f"{folder}/whole", "start"), train(f"{folder}/chain", "start", 16)]
    assert sorted(path.name[:6] for path in folder.glob("chain/*/fold-*")) == ["fold-1", "fold-2"]
    codes += [train(f"{folder}/chain", "resume", 3), train(f"{folder}/chain", "resume")]
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    whole, chain = (next((folder / name).iterdir()) for name in ("whole", "chain"))
    contents = [json.loads((path / "folds.json").read_text()) for path in (whole, chain)]
    assert contents[0]["metrics"] == contents[1]["metrics"]
    tables = [(path / "evaluation" / "probabilities.npy").read_bytes() for path in (whole, chain)]
    assert tables[0] == tables[1]
    assert len(list(chain.glob("fold-*"))) == 3


class _Malloc(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def bytes_in_use() -> int:
    """Bytes that C and C++ code has allocated: on the heap, and as mapped memory for large arrays."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Malloc
    return mallinfo().uordblks + mallinfo().hblkhd


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc counts the bytes"
)
@pytest.mark.usefixtures("short_pipeline")
def test_memory_does_not_grow_with_the_folds(
    declare_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    train_model = folds_module.train_model

    def train(*arguments: object, **options: object) -> object:
        measured.append(bytes_in_use())
        return train_model(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(folds_module, "train_model", train)
    run = declare_run(output_dir=str(tmp_path))
    folder = FoldsFolder.make(run, 5, 0, "train_data + val_data", "", 24)
    train_fold_models(folder, run)
    growth = np.diff(measured)[1:]  # the first fold loads what all folds share
    assert np.median(growth) < 1e6, growth  # the graph of a step takes 4 MB


def test_most_changed_labels_and_few_others_are_listed_as_issues(
    declare_run: Callable[..., Run], draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    if importlib.util.find_spec("cleanlab") is None:
        pytest.skip("cleanlab, the extra 'labels', is not installed")
    folder, random = draw_folder(tmp_path / "data", 80), np.random.default_rng(0)
    images = sorted(folder.glob("*/*.png"))
    changed = set()
    for index in random.choice(len(images), len(images) // 20, replace=False):
        path = images[index]
        others = [each for each in ("blue", "green", "red") if each != path.parent.name]
        changed.add(path.rename(folder / str(random.choice(others)) / f"changed-{index}.png"))
    run = declare_run(
        train_data=ImageFolder(folder), val_data=None, output_dir=str(tmp_path / "output"), training__epochs=6
    )
    result = train_folds(run, 3)
    with open(result.path / "evaluation" / "label_issues.csv", newline="") as file:
        listed = [Path(row["path"]) for row in csv.DictReader(file)]
    assert len(changed & {*listed}) >= 0.8 * len(changed)
    assert len({*listed} - changed) <= 3
    assert result.num_label_issues == len(listed)
    keras.backend.clear_session()
    assert os.path.exists(result.path / "report" / "index.html")
