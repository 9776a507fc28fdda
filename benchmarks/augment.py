"""What does each augmentation cost, and does a policy cost only what it draws?

    .venv/bin/python benchmarks/augment.py    about 2 minutes on 2 cores

Images of 224 x 224 x 3 (gradients and noise) go through `tf.data` in all of TensorFlow's threads. Prints microseconds
of processor time for each image, the sum over threads: of each augmentation with its defaults but `probability=1`,
without what an empty pipeline takes; mixing takes batches of 32. Then those of each operation of RandAugment, and the
ratios of RandAugment(num_ops=2) to two operations of mean cost and to all of them; median and spread over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np
import tensorflow as tf

from model_trainer.pipeline.augment import (
    KERAS_TRAINER,
    Augmentation,
    BatchAugmentation,
    RandAugment,
    augment_image,
    policies,
)
from model_trainer.pipeline.augment.affine import Resampling

SIZE, BATCH_SIZE, NUM_IMAGES = 224, 32, 640
EMPTY = "empty pipeline"
POLICY = RandAugment(num_ops=2)


def make_images(count: int) -> tf.Tensor:
    """Content that is neither flat nor only noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE] * 255 / SIZE
    gradients = np.stack([x, y, (x + y) / 2], axis=-1)
    return tf.constant(np.clip(gradients + random.normal(0, 12, (count, SIZE, SIZE, 3)), 0, 255).astype(np.uint8))


def of_images(change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    images = make_images(4)

    def load(number: tf.Tensor) -> tf.Tensor:
        return change(tf.ensure_shape(images[number % 4], (SIZE, SIZE, 3)), tf.stack([0, number]))

    return tf.data.Dataset.range(NUM_IMAGES, output_type=tf.int32).map(load, num_parallel_calls=tf.data.AUTOTUNE)


def of_batches(mixing: BatchAugmentation) -> tf.data.Dataset:
    images, targets, weights = make_images(BATCH_SIZE), tf.eye(BATCH_SIZE), tf.ones(BATCH_SIZE)

    def load(number: tf.Tensor) -> tf.Tensor:
        return mixing.apply_to_batch(images, targets, weights, tf.stack([0, number]))[0]

    steps = NUM_IMAGES // BATCH_SIZE
    return tf.data.Dataset.range(steps, output_type=tf.int32).map(load, num_parallel_calls=tf.data.AUTOTUNE)


def of_kind(kind: type[Augmentation]) -> tf.data.Dataset:
    augmentation = kind(probability=1) if "probability" in kind.model_fields else kind()
    return of_batches(augmentation) if isinstance(augmentation, BatchAugmentation) else of_images(augmentation.apply)


def of_operation(number: int) -> tf.data.Dataset:
    """An operation of RandAugment at the strength that it has there."""
    limits = policies.Limits(0.3, (150 / 331 * SIZE, 150 / 331 * SIZE), 30.0, 0.9, 4)
    strength = tf.constant(POLICY.magnitude / policies.MAX_MAGNITUDE)

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        sign = tf.where(seed[1] % 2 == 0, 1.0, -1.0)
        return policies.operations(image, strength, sign, limits, Resampling("constant", 0, "nearest"))[number]()

    return of_images(change)


def microseconds(dataset: tf.data.Dataset) -> float:
    """For each image, after the first 5 %, because a new iterator prepares its graph first."""
    elements = iter(dataset)
    count = len(dataset)
    first = count // 20
    for _ in range(first):
        next(elements)
    started = time.process_time()
    for _ in elements:
        pass
    return (time.process_time() - started) / (NUM_IMAGES * (1 - first / count)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    kinds = {name: of_kind(kind) for name, kind in sorted(Augmentation.kinds().items())}
    kinds["KERAS_TRAINER"] = of_images(lambda image, seed: augment_image(image, KERAS_TRAINER, seed))
    operations = {f"operation {number}": of_operation(number) for number in range(14)}
    ways = {EMPTY: of_images(lambda image, seed: image), **kinds, **operations}
    for dataset in ways.values():
        microseconds(dataset)  # builds the graph
    rounds = []
    for number in range(arguments.rounds):
        # In turn forwards and backwards, so that a machine that slows down slows all of them.
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        times = {name: microseconds(ways[name]) for name in order}
        rounds.append({name: times[name] - (0 if name == EMPTY else times[EMPTY]) for name in ways})
    for name in ways:
        print(f"{name:<18} {described([times[name] for times in rounds], 0)} microseconds")
    drawn = [times["RandAugment"] for times in rounds]
    every = [sum(times[name] for name in operations) for times in rounds]
    two = POLICY.num_ops / len(operations)
    print("RandAugment(2) / two operations:", described([a / (b * two) for a, b in zip(drawn, every, strict=True)], 2))
    print("RandAugment(2) / all operations:", described([a / b for a, b in zip(drawn, every, strict=True)], 2))


def described(values: Sequence[float], digits: int) -> str:
    return f"median {statistics.median(values):.{digits}f}, {min(values):.{digits}f} to {max(values):.{digits}f}"


if __name__ == "__main__":
    main()
