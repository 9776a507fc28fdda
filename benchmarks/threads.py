"""Are images read faster by as many threads as there are cores, or by the number that `tf.data` tunes itself to?

    .venv/bin/python benchmarks/threads.py    about 1 minute on 2 cores

256 JPEG files of 500 x 375 pixels (gradients and noise, made in a temporary folder) go through a training pipeline
with random crops and flips, eight epochs with each number of threads in turn. Prints images per second of both and the
ratio, fixed to tuned; median and spread over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from model_trainer import ImageFolder, ModelSpec, RandomFlip, RandomResizedCrop
from model_trainer.pipeline import fallback
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline

num_cores = fallback.num_usable_cores


def rate(pipeline: Pipeline, *, tuned: bool) -> float:
    """Images per second after the first batch."""
    fallback.num_usable_cores = (lambda: tf.data.AUTOTUNE) if tuned else num_cores
    options = tf.data.Options()
    options.autotune.enabled = tuned
    batches = iter(pipeline.training(8).with_options(options))
    next(batches)
    started = time.perf_counter()
    count = sum(len(batch.weights) for batch in batches)
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for number in range(256):
            folder = Path(name) / "ab"[number % 2]
            folder.mkdir(exist_ok=True)
            pixels = np.linspace(0, 200, 500)[None, :, None] + random.integers(0, 40, (375, 500, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        pipeline = Pipeline(
            examples=ImageFolder(name).read(),
            spec=ModelSpec(target_size=[224, 224, 3]),
            batch_size=32,
            bad_images=BadImages(10, 0.1, 256),
            augment=(RandomResizedCrop(), RandomFlip()),
        )
        rate(pipeline, tuned=True), rate(pipeline, tuned=False)
        ratios = []
        for _ in range(arguments.rounds):
            tuned, fixed = rate(pipeline, tuned=True), rate(pipeline, tuned=False)
            ratios.append(fixed / tuned)
            print(f"tuned {tuned:,.0f}   fixed {fixed:,.0f} images/s   ratio {fixed / tuned:.3f}", flush=True)
    print(f"ratio fixed / tuned: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
