"""How much time does the training loop add to the bare compiled step?

    .venv/bin/python benchmarks/loop.py            about 4 minutes on 2 cores
    .venv/bin/python benchmarks/loop.py --small    about 1 minute; a small network, so that the loop weighs more

The run of the sample (VGG19, 64 x 64, batch 32). Each round times the same number of steps twice: of the compiled step
alone on one batch that is already in memory, and of the loop of `train_epochs` with its pipeline, metrics and progress
line. Prints seconds per step and the ratio, median and spread over rounds. The target is a ratio of at most 1.03.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer import Constant, ImageFolder, ModelSpec, RandomFlip, Run, Training
from model_trainer.sources.sample import unpack_sample
from model_trainer.training.epochs import train_steps
from model_trainer.training.loop import make_loop
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.training.non_chief import NonChiefSaver
from model_trainer.training.prepare import prepare
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import StopRequest

STEPS = 31


def make_run(folder: Path, small: bool) -> Run:
    unpack_sample(folder / "sample")
    vgg19 = {
        "class": "keras.applications.vgg19.VGG19",
        "preprocess_func": "bgr_mean_subtraction",
        "preprocess_args": [123.68, 116.779, 103.939],
        "target_size": [64, 64, 3],
    }
    toy = {"class": "model_trainer.testing.small_backbone", "target_size": [64, 64, 3]}
    return Run(
        spec=ModelSpec(**(toy if small else vgg19)),
        weights=None,
        train_data=ImageFolder(folder / "sample" / "train"),
        augment=(RandomFlip(),),
        training=Training(epochs=100, schedule=Constant()),
        output_dir=str(folder / "output"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    steps = STEPS * (10 if arguments.small else 1)
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, open("/dev/null", "w") as nowhere:
        run = make_run(Path(folder), arguments.small)
        prepared = prepare(run)
        run_folder = RunFolder.make(run, prepared.description)
        with run_folder.logs() as logs:
            loop = make_loop(prepared, run_folder, logs, Console(file=nowhere), StopRequest(), NonChiefSaver())
            batches = iter(prepared.train_pipeline.training(epochs=100))
            batch = next(batches)
            inputs = (batch, tf.constant(0, tf.int64), len(batch[2]), tf.constant(False))
            loop.phase.step(*inputs)  # traces

            def bare() -> float:
                started = time.perf_counter()
                for _ in range(steps):
                    result = loop.phase.step(*inputs)
                result.scalars["loss_sum"].numpy()
                return time.perf_counter() - started

            def looped() -> float:
                started = time.perf_counter()
                for _ in range(steps // STEPS):
                    train_steps(loop, 0, batches, range(STEPS), MetricAccumulator(run.task.additive_metrics))
                return time.perf_counter() - started

            bare(), looped()
            rounds = []
            for _ in range(arguments.rounds):
                step_seconds, loop_seconds = bare(), looped()
                rounds.append((step_seconds / steps, loop_seconds / steps, loop_seconds / step_seconds))
                print(
                    f"bare {step_seconds / steps:.4f} s/step   loop {loop_seconds / steps:.4f} s/step   "
                    f"ratio {loop_seconds / step_seconds:.3f}"
                )
    ratios = [ratio for _, _, ratio in rounds]
    print(f"ratio loop / bare: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
