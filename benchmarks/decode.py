"""How fast do JPEG files become images for training and for validation?

    .venv/bin/python benchmarks/decode.py    about 1 minute on 2 cores

256 JPEG files of 500 x 375 pixels (gradients and noise, made in a temporary folder) become uint8 or float32 batches of
32 images of 224 x 224, by several pipelines that use all of TensorFlow's threads. Prints images per second of each and
its ratio to Keras' `image_dataset_from_directory`, then the ratio of our random crop to the same crop of a completely
decoded image; median and spread over rounds. Keras and "whole, plain" resize without antialiasing, which is less work
than ours.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from model_trainer import ModelSpec, RandomResizedCrop
from model_trainer.pipeline.fallback import map_with_fallback
from model_trainer.pipeline.image import exact_image, fast_image
from model_trainer.pipeline.view import View

NUM_FILES = 256
HEIGHT, WIDTH, TARGET = 375, 500, 224
BATCH_SIZE = 32

SPEC = ModelSpec(target_size=[TARGET, TARGET, 3])
CROP = RandomResizedCrop()


def make_files(folder: Path) -> list[str]:
    """Writes JPEG files of gradients and noise, without metadata; returns their paths."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    gradients = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x + y) * 255 / (HEIGHT + WIDTH)], axis=-1)
    paths = []
    for number in range(NUM_FILES):
        pixels = np.clip(gradients + random.normal(0, 12, gradients.shape), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{number:04d}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def seed_of(number: tf.Tensor) -> tf.Tensor:
    return tf.stack([0, tf.cast(number, tf.int32)])


def ours(paths: list[str], crop: RandomResizedCrop | None) -> tf.data.Dataset:
    """Decoding as in the pipeline, including the fallback for files that the fast path cannot read."""
    files, view = tf.constant(paths), View(SPEC, crop)

    def fast(number: tf.Tensor) -> tuple[tf.Tensor]:
        return (fast_image(tf.io.read_file(files[number]), view, seed=seed_of(number)),)

    def exact(number: tf.Tensor) -> tuple[tf.Tensor]:
        return (exact_image(tf.io.read_file(files[number]), view, seed=seed_of(number))[0],)

    images = map_with_fallback(0, NUM_FILES, fast, exact).map(lambda image: image)
    return images.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def whole(antialias: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function that decodes the whole image and then takes the same random crop."""

    def load(path: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        pixels = tf.image.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        pixels = CROP.apply(pixels, seed_of(number))
        pixels = tf.image.resize(pixels, (TARGET, TARGET), antialias=antialias)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)

    return load


def with_keras(folder: Path) -> tf.data.Dataset:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of files
        return keras.utils.image_dataset_from_directory(
            folder,
            labels=None,
            image_size=(TARGET, TARGET),
            batch_size=BATCH_SIZE,
            shuffle=False,
            crop_to_aspect_ratio=True,
        )


def images_per_second(dataset: tf.data.Dataset) -> float:
    """The rate in one pass, without its first batch, which also waits for the threads to start."""
    batches = iter(dataset)
    next(batches)
    started = time.perf_counter()
    num_images = sum(len(batch) for batch in batches)
    return num_images / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder))
        numbered = tf.data.Dataset.from_tensor_slices((paths, np.arange(NUM_FILES)))

        def batches(load: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
            images = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE)
            return images.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)

        ways = {
            "keras": with_keras(Path(folder)),
            "ours, validation": ours(paths, crop=None),
            "ours, random crop": ours(paths, CROP),
            "whole, antialiased": batches(whole(antialias=True)),
            "whole, plain": batches(whole(antialias=False)),
        }
        for dataset in ways.values():
            images_per_second(dataset)  # traces, and fills the page cache
        rounds = []
        for number in range(arguments.rounds):
            # Alternately forwards and backwards, so that a machine that slows down slows all of them equally.
            order = list(ways) if number % 2 == 0 else list(reversed(ways))
            rounds.append({name: images_per_second(ways[name]) for name in order})
    for name in ways:
        rates = [rates[name] for rates in rounds]
        print(f"{name:<18} {statistics.median(rates):7.0f} images/s   ", end="")
        print(ratio(rounds, name, "keras"))
    print(ratio(rounds, "ours, random crop", "whole, antialiased"))


def ratio(rounds: list[dict[str, float]], name: str, other: str) -> str:
    ratios = [rates[name] / rates[other] for rates in rounds]
    return f"{name} / {other}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"


if __name__ == "__main__":
    main()
