"""Which networks train faster in mixed_bfloat16 than in float32 on this machine?

    .venv/bin/python benchmarks/precision.py                       about 25 minutes on 2 cores
    .venv/bin/python benchmarks/precision.py mobilenet_v2 vgg16    some networks only
    .venv/bin/python benchmarks/precision.py --size 64

One network of each family of `keras.applications`, from random weights, Adam, on one batch that is already in memory.
Both precisions take steps in turn. Prints images per second and the ratio, median and spread over rounds: the data
behind the rule of `precision="auto"`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer import ImageFolder, ModelSpec, Run, Training
from model_trainer.pipeline.batch import Batch
from model_trainer.sources.sample import unpack_sample
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step

FAMILIES = (
    "vgg16", "resnet50", "resnet50_v2", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "efficientnetb0",
    "efficientnetv2b0", "densenet_121", "xception", "inception_v3", "nasnet_mobile", "convnext_tiny",
    "inception_resnet_v2",
)  # fmt: skip
STEPS = 3


def make_step(folder: Path, name: str, size: int, batch_size: int, precision: str) -> Callable[[], float]:
    """A function that takes `STEPS` steps and returns the seconds per step."""
    run = Run(
        spec=ModelSpec.named(name, target_size=[size, size, 3]),
        weights=None,
        train_data=ImageFolder(folder / "train"),
        training=Training(precision=precision, batch_size=batch_size),
    )
    prepared = prepare(run)
    prepared.optimizer.build(prepared.step_setup.network.model.trainable_variables)
    step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), None)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    batch = Batch(tf.constant(images), tf.constant(np.arange(batch_size) % 10, tf.int32), tf.ones(batch_size))

    def take() -> float:
        started = time.perf_counter()
        for number in range(STEPS):
            result = step(batch, tf.constant(np.int64(number)), batch_size, tf.constant(False))
        result.scalars["loss_sum"].numpy()
        return (time.perf_counter() - started) / STEPS

    take()
    return take


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=FAMILIES)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        unpack_sample(Path(folder) / "sample")
        for name in arguments.names:
            keras.backend.clear_session()
            steps = {
                precision: make_step(Path(folder) / "sample", name, arguments.size, arguments.batch_size, precision)
                for precision in ("float32", "mixed_bfloat16")
            }
            # The first round does not count: its float32 step takes up to four times as long as any later one.
            rounds = [[take() for take in steps.values()] for _ in range(1 + arguments.rounds)][1:]
            wide, narrow = (arguments.batch_size / statistics.median(each) for each in zip(*rounds, strict=True))
            ratios = [float32 / bfloat16 for float32, bfloat16 in rounds]
            print(
                f"{name:<20} float32 {wide:6.1f}   mixed_bfloat16 {narrow:6.1f} images/s   "
                f"ratio {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
