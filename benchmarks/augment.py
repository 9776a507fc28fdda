"""What does each augmentation cost, and does a policy cost only what it draws?

    .venv/bin/python benchmarks/augment.py    about 2 minutes on 2 cores

Images of 224 x 224 x 3 (gradients and noise) go through `tf.data` in all of TensorFlow's threads. Prints microseconds
of processor time per image, summed over threads, less those of an empty pipeline: for each augmentation with its
defaults except `probability=1` (mixing takes batches of 32), and for each operation of RandAugment; then the ratios of
RandAugment(num_ops=2) to two operations of mean cost and to all operations. Median and spread over rounds.
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
    """Images of gradients and noise, uint8 `(count, 224, 224, 3)`."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE] * 255 / SIZE
    gradients = np.stack([x, y, (x + y) / 2], axis=-1)
    return tf.constant(np.clip(gradients + random.normal(0, 12, (count, SIZE, SIZE, 3)), 0, 255).astype(np.uint8))


def image_dataset(change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    images = make_images(4)

    def load(number: tf.Tensor) -> tf.Tensor:
        return change(tf.ensure_shape(images[number % 4], (SIZE, SIZE, 3)), tf.stack([0, number]))

    return tf.data.Dataset.range(NUM_IMAGES, output_type=tf.int32).map(load, num_parallel_calls=tf.data.AUTOTUNE)


def batch_dataset(mixing: BatchAugmentation) -> tf.data.Dataset:
    images, targets, weights = make_images(BATCH_SIZE), tf.eye(BATCH_SIZE), tf.ones(BATCH_SIZE)

    def load(number: tf.Tensor) -> tf.Tensor:
        return mixing.apply_to_batch(images, targets, weights, tf.stack([0, number]))[0]

    steps = NUM_IMAGES // BATCH_SIZE
    return tf.data.Dataset.range(steps, output_type=tf.int32).map(load, num_parallel_calls=tf.data.AUTOTUNE)


def augmentation_dataset(kind: type[Augmentation]) -> tf.data.Dataset:
    augmentation = kind(probability=1) if "probability" in kind.model_fields else kind()
    return (
        batch_dataset(augmentation)
        if isinstance(augmentation, BatchAugmentation)
        else image_dataset(augmentation.apply)
    )


def operation_dataset(number: int) -> tf.data.Dataset:
    """A dataset with one operation of RandAugment, at the strength that RandAugment uses."""
    limits = policies.Limits(0.3, (150 / 331 * SIZE, 150 / 331 * SIZE), 30.0, 0.9, 4)
    strength = tf.constant(POLICY.magnitude / policies.MAX_MAGNITUDE)

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        sign = tf.where(seed[1] % 2 == 0, 1.0, -1.0)
        return policies.operations(image, strength, sign, limits, Resampling("constant", 0, "nearest"))[number]()

    return image_dataset(change)


def microseconds(dataset: tf.data.Dataset) -> float:
    """Processor time per image, without the first 5 %, during which a new iterator prepares its graph."""
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
    kinds = {name: augmentation_dataset(kind) for name, kind in sorted(Augmentation.kinds().items())}
    kinds["KERAS_TRAINER"] = image_dataset(lambda image, seed: augment_image(image, KERAS_TRAINER, seed))
    operations = {f"operation {number}": operation_dataset(number) for number in range(14)}
    ways = {EMPTY: image_dataset(lambda image, seed: image), **kinds, **operations}
    for dataset in ways.values():
        microseconds(dataset)  # traces
    rounds = []
    for number in range(arguments.rounds):
        # Alternately forwards and backwards, so that a machine that slows down slows all of them equally.
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        times = {name: microseconds(ways[name]) for name in order}
        rounds.append({name: times[name] - (0 if name == EMPTY else times[EMPTY]) for name in ways})
    for name in ways:
        print(f"{name:<18} {spread([times[name] for times in rounds], 0)} microseconds")
    drawn = [times["RandAugment"] for times in rounds]
    every = [sum(times[name] for name in operations) for times in rounds]
    two = POLICY.num_ops / len(operations)
    print("RandAugment(2) / two operations:", spread([a / (b * two) for a, b in zip(drawn, every, strict=True)], 2))
    print("RandAugment(2) / all operations:", spread([a / b for a, b in zip(drawn, every, strict=True)], 2))


def spread(values: Sequence[float], digits: int) -> str:
    return f"median {statistics.median(values):.{digits}f}, {min(values):.{digits}f} to {max(values):.{digits}f}"


if __name__ == "__main__":
    main()
