"""One device or several, one process or several: the same training."""

from __future__ import annotations

import csv
import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from model_trainer import LAMB, SGD, Adam, CutMix, Hardware, MixUp, Run, load_model
from model_trainer.training.checkpoints.store import read_newest
from model_trainer.training.train import train_model
from model_trainer.user_code import Live

DeclareRun = Callable[..., Run]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("short_pipeline", "plain_graphs"),  # not in the processes of train_on_hosts.py
]  # up to three processes share the available cores

SCRIPT = Path(__file__).with_name("train_on_hosts.py")

# 20 steps or more. 7 images on 2, 3 and 4 devices, then 7, then 1; with validation.
UNEVEN = {"training__batch_size": 7, "training__epochs": 7}
SMALL = {"val_data": None, "training__epochs": 7}
RUNS = {
    "uneven": {**UNEVEN, "training__deterministic": True},
    "mixed": {
        **SMALL,
        "training__batch_size": 6,  # then 6, then 3
        "training__accumulation_steps": 2,
        "training__optimizer": SGD(momentum=0.9, clip_norm=0.05),
        "augment": (MixUp(alpha=1.0),),  # soft labels, too
        "task__class_weights": {"red": 3.0},
        "network__regularize": [{"type": "L2", "strength": 0.01}],
    },
    "averaged": {
        **SMALL,
        "training__batch_size": 5,
        "training__ema_decay": 0.9,
        "training__synchronized_batch_norm": True,
        "training__optimizer": SGD(momentum=0.9, clip_value=0.01),
        "spec__kwargs": {"batch_normalization": True},
        "augment": (CutMix(),),
    },
    "loss_scaling": {**SMALL, "training__batch_size": 5},
    "adam": {**SMALL, "training__batch_size": 5, "training__optimizer": Adam(), "training__learning_rate": 0.01},
    "lamb": {**SMALL, "training__batch_size": 5, "training__optimizer": LAMB(), "training__learning_rate": 0.01},
}
SGD_RUNS = ("uneven", "mixed", "averaged", "loss_scaling")
# What several processes train: the first together with a run that is interrupted, the second with -m slow.
ON_HOSTS = (("uneven",), ("averaged", "mixed", "loss_scaling"))


@pytest.fixture(scope="module")
def declared(declare_run: DeclareRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    def declare(name: str, folder_name: str, devices: int = 1) -> Run:
        folder = tmp_path_factory.getbasetemp() / "agreement" / folder_name
        hardware = Hardware(platform="cpu", devices=devices)
        changes = {"name": name, "network__dropout_rate": 0.0, "output_dir": str(folder), "hardware": hardware}
        return declare_run(**{**changes, **RUNS[name]})

    return declare


def output_of(run: Run) -> Path:
    (output,) = Path(run.output_dir).glob(f"{run.name}-*")
    return output


@pytest.fixture(scope="module")
def alone(declared: Callable[..., Run]) -> Callable[[str], Path]:
    """The output folder of a run on one device, by the name of the run."""
    return functools.cache(lambda name: train_on(declared(name, "alone")))


def train_on(run: Run) -> Path:
    if run.name == "loss_scaling":
        inner = keras.optimizers.SGD(0.1, momentum=0.9)
        run = run.changed("training.optimizer", Live(keras.optimizers.LossScaleOptimizer(inner, 1024.0)))
    return train_model(run).path


@dataclass(frozen=True)
class OnHosts:
    """What several processes left: the output of each run, and that of one which was interrupted again and again."""

    whole: dict[str, Path]
    interrupted: Path | None


# The plans of the interrupted run, by number of processes; `train_on_hosts.py` defines them.
PLANS = {2: ("kill", "end"), 3: ("kill", "stop", "end")}


@pytest.fixture(scope="module")
def on_hosts(declared: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., OnHosts]:
    """Trains runs on two processes, or three, which divide less evenly."""

    @functools.cache
    def outputs(num_hosts: int, names: tuple[str, ...]) -> OnHosts:
        runs = [declared(name, f"hosts-{num_hosts}", "auto") for name in names]
        interrupted = declared("uneven", f"interrupted-{num_hosts}", "auto") if names == ON_HOSTS[0] else None
        plans = PLANS[num_hosts] if interrupted else ()
        jobs = [(runs, ""), *(([interrupted], plan) for plan in plans)]
        codes = {"": [0] * num_hosts, "kill": [75] * (num_hosts - 1) + [-9], "stop": [75] * num_hosts}
        expected = [codes[""], *(codes.get(plan, codes[""]) for plan in plans)]
        assert codes_of(num_hosts, jobs, tmp_path_factory.mktemp("hosts")) == expected
        return OnHosts({run.name: output_of(run) for run in runs}, interrupted and output_of(interrupted))

    return outputs


def codes_of(num_hosts: int, jobs: list[tuple[list[Run], str]], folder: Path) -> list[list[int]]:
    """The exit codes of the processes, for each job: runs, one after another, and the plan of what happens."""
    file = folder / "jobs.json"
    file.write_text(json.dumps([[[run.to_dict() for run in runs], plan] for runs, plan in jobs]))
    arguments = [sys.executable, str(SCRIPT), str(num_hosts), str(file)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    print(done.stderr)
    return list(json.loads(done.stdout))


def history_of(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "history.csv").read_text())))


def assert_same_training(one: Path, other: Path, *, also_weights: bool = True) -> None:
    ours, theirs = history_of(one), history_of(other)
    assert len(ours) == len(theirs) == 7
    for row, expected in zip(theirs, ours, strict=True):
        names = [name for name in expected if name not in ("epoch", "seconds")]
        assert [float(row[name]) for name in names] == pytest.approx(
            [float(expected[name]) for name in names], abs=1e-5
        )
    if also_weights:
        for mine, yours in zip(load_model(one).model.weights, load_model(other).model.weights, strict=True):
            np.testing.assert_allclose(mine.numpy(), yours.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        *((name, 2) for name in ("uneven", "mixed", "averaged", "adam")),
        pytest.param("loss_scaling", 2, marks=pytest.mark.slow),
        pytest.param("lamb", 2, marks=pytest.mark.slow),
        pytest.param("uneven", 4, marks=pytest.mark.slow),
        pytest.param("mixed", 3, marks=pytest.mark.slow),
        pytest.param("averaged", 4, marks=pytest.mark.slow),
    ],
)
def test_several_devices_train_like_one(
    alone: Callable[[str], Path], declared: Callable[..., Run], name: str, devices: int
) -> None:
    path = train_on(declared(name, f"devices-{devices}", devices))
    assert_same_training(alone(name), path, also_weights=name in SGD_RUNS)


@pytest.mark.parametrize("num_hosts", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", [ON_HOSTS[0], pytest.param(ON_HOSTS[1], marks=pytest.mark.slow)], ids=" and ".join)
def test_several_processes_train_like_one(
    alone: Callable[[str], Path], on_hosts: Callable[..., OnHosts], names: tuple[str, ...], num_hosts: int
) -> None:
    for name in names:
        assert_same_training(alone(name), on_hosts(num_hosts, names).whole[name])


def test_only_the_chief_process_writes(on_hosts: Callable[..., OnHosts]) -> None:
    # `output_of` would have found a second folder, a second writer would have doubled the lines.
    lines = (on_hosts(2, ON_HOSTS[0]).whole["uneven"] / "logs" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines if json.loads(line)["kind"] == "epoch"]
    assert epochs == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("num_hosts", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_that_loses_a_process_or_is_stopped_resumes_to_the_same_bits(
    on_hosts: Callable[..., OnHosts], num_hosts: int
) -> None:
    outputs = on_hosts(num_hosts, ON_HOSTS[0])
    assert outputs.interrupted is not None
    whole, interrupted = (read_newest(path / "checkpoints") for path in (outputs.whole["uneven"], outputs.interrupted))
    assert whole is not None
    assert interrupted is not None
    assert whole.arrays.keys() == interrupted.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, interrupted.arrays[name], err_msg=name)
    assert len(history_of(outputs.interrupted)) == 7


def test_accumulated_gradients_train_like_the_whole_batch(make_run: Callable[..., Run]) -> None:
    run = make_run(network__dropout_rate=0.0, val_data=None, training__batch_size=8, training__epochs=3)
    for output_dir, accumulation_steps in (("whole", 1), ("accumulated", 4)):
        train_model(
            run.changed("output_dir", str(Path(run.output_dir) / output_dir)).changed(
                "training.accumulation_steps", accumulation_steps
            )
        )
    whole, accumulated = (next((Path(run.output_dir) / name).iterdir()) for name in ("whole", "accumulated"))
    losses = [[float(row["loss"]) for row in history_of(path)] for path in (whole, accumulated)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for mine, yours in zip(load_model(whole).model.weights, load_model(accumulated).model.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), yours.numpy(), atol=1e-5)
