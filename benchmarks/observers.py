"""How much time do the norms of the layer groups add to a step?

    .venv/bin/python benchmarks/observers.py                     about 5 minutes on 2 cores
    .venv/bin/python benchmarks/observers.py --spec vgg16        another network

The same step is traced twice, without observers and with the default `LayerNorms()`, and both run in turn on one batch
in memory. Steps that compute the norms, one in a hundred, are timed separately. Prints milliseconds, and how much the
default adds to an average step, as the median and the quartiles over rounds. The target is below 1 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer import ImageFolder, LayerNorms, ModelSpec, Run, Training
from model_trainer.sources.sample import unpack_sample
from model_trainer.training.gradients import Clip
from model_trainer.training.observers import Observers
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step


class DiscardedNorms:
    """An observer that computes the default `LayerNorms` and discards the values."""

    every, uses, compute = LayerNorms().every, LayerNorms.uses, LayerNorms().compute

    def receive(self, step: int, values: dict[str, float]) -> None:
        pass


def make_timed_step(folder: Path, arguments: argparse.Namespace, observers: Observers) -> Callable[[int], float]:
    """A function that runs the step with a given number and returns its seconds."""
    run = Run(
        spec=ModelSpec.named(arguments.spec, target_size=[arguments.size, arguments.size, 3]),
        weights=None,
        train_data=ImageFolder(folder / "sample" / "train"),
        training=Training(batch_size=arguments.batch_size, precision="float32"),
    )
    prepared = prepare(run)
    prepared.optimizer.build(prepared.step_setup.network.model.trainable_variables)
    step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), None, observers)
    batch: Any = next(iter(prepared.train_pipeline.training(epochs=1)))

    def timed(number: int) -> float:
        started = time.perf_counter()
        result = step(batch, tf.constant(np.int64(number)), len(batch.weights), tf.constant(False))
        observers.add(number, result.observed)
        result.scalars["loss_sum"].numpy()
        return time.perf_counter() - started

    return timed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        unpack_sample(Path(folder) / "sample")
        without = make_timed_step(Path(folder), arguments, Observers())
        with_norms = make_timed_step(Path(folder), arguments, Observers(logged={"norms": DiscardedNorms()}))
        for timed in (without, with_norms, without, with_norms):
            timed(100)
        rows = []
        for number in range(arguments.rounds):
            pair = (without, with_norms) if number % 2 else (with_norms, without)
            plain = {timed: timed(1) for timed in pair}
            rows.append((plain[without], plain[with_norms], with_norms(100)))
    every = LayerNorms().every
    added = [(((every - 1) * quiet + due) / every / plain - 1) * 100 for plain, quiet, due in rows]
    medians = [statistics.median(column) * 1000 for column in zip(*rows, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4)
    print("step without {:.1f} ms, with norms not due {:.1f} ms, due {:.1f} ms".format(*medians))
    print(f"at the default a step takes {middle:+.2f} % ({low:+.2f} to {high:+.2f}) longer")


if __name__ == "__main__":
    main()
