"""How fast is `predict` for many image files, compared with decoding and the network alone, and with Keras?

    .venv/bin/python benchmarks/predict.py                      300 images, MobileNetV2 at 224 x 224
    .venv/bin/python benchmarks/predict.py --images 10000

Writes JPEGs of 500 x 375 pixels into a temporary folder. Then times in turn, in several rounds:

- `input`: decoding the images in threads as `predict` does, without the network
- `network`: the engine that `predict` uses, on random images in batches of 32
- `predict`: both together
- `predict, no engine`: the same with the Keras model as it was loaded
- `load_img loop`: `keras.utils.load_img`, a batch of 32, `model.predict`: the simplest code
- `image_dataset`: `keras.utils.image_dataset_from_directory` and `model.predict`: the code that Keras recommends

Prints images per second, the best of the rounds and the spread; and the rate of `predict` as a fraction of the bound
given by input and network. On a CPU both share the cores, so their times add up, and the bound is `1 / (1 / input + 1 /
network)`; with a GPU it is the slower of the two. The time of making the engine, some seconds once, is printed
separately and is not part of the rates.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from model_trainer import Classification, ModelSpec
from model_trainer.inference.choose import sample_images, with_engine
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.predictor import BATCHES_AHEAD, _decoded, predict_images

BATCH = 32


def draw(folder: Path, count: int) -> list[str]:
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        path = folder / "photos" / f"{number:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def input_alone(trained: TrainedModel, paths: list[str]) -> None:
    for _ in _decoded(trained.spec, paths, BATCHES_AHEAD * BATCH):
        pass


def network_alone(trained: TrainedModel, paths: list[str]) -> None:
    images = sample_images(trained, BATCH)
    for start in range(0, len(paths), BATCH):
        trained.probabilities(images[: len(paths) - start])


def together(trained: TrainedModel, paths: list[str]) -> None:
    for _ in predict_images(trained, paths, batch_size=BATCH):
        pass


def load_img_loop(trained: TrainedModel, paths: list[str]) -> None:
    size = trained.spec.target_size[:2]
    for start in range(0, len(paths), BATCH):
        images = [
            keras.utils.img_to_array(keras.utils.load_img(path, target_size=size)) for path in paths[start:][:BATCH]
        ]
        trained.model.predict(trained.spec.preprocess(np.stack(images)), verbose=0)


def image_dataset(trained: TrainedModel, paths: list[str]) -> None:
    images = keras.utils.image_dataset_from_directory(
        Path(paths[0]).parents[1], labels=None, shuffle=False, image_size=trained.spec.target_size[:2],
        batch_size=BATCH, verbose=False,
    ).map(trained.spec.preprocess, num_parallel_calls=tf.data.AUTOTUNE)  # fmt: skip
    trained.model.predict(images.prefetch(tf.data.AUTOTUNE), verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spec", default="mobilenet_v2")
    parser.add_argument("--engine", choices=["auto", "keras", "openvino"], default="auto")
    options = parser.parse_args()
    spec = ModelSpec.named(options.spec)
    network = getattr(keras.applications, str(spec.class_).rpartition(".")[2])(weights=None)
    plain = TrainedModel(network, spec, Classification(), tuple(map(str, range(1000))), Path("model.hdf5"))
    start = time.perf_counter()
    engine = with_engine(plain, options.engine, batch_sizes=(BATCH,))
    name = "none" if engine.engine is None else engine.engine.name
    print(f"engine: {name}, made in {time.perf_counter() - start:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), options.images)
        ways: dict[str, Callable[[list[str]], None]] = {
            "input": functools.partial(input_alone, engine),
            "network": functools.partial(network_alone, engine),
            "predict": functools.partial(together, engine),
            "predict, no engine": functools.partial(together, plain),
            "load_img loop": functools.partial(load_img_loop, plain),
            "image_dataset": functools.partial(image_dataset, plain),
        }
        for way in ways.values():
            way(paths[:BATCH])  # traces
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                start = time.perf_counter()
                run(paths)
                rates[way].append(len(paths) / (time.perf_counter() - start))
    best = {way: max(values) for way, values in rates.items()}
    for way, values in rates.items():
        print(
            f"{way:20} {best[way]:8.1f} images/s ({min(values):.1f} to {max(values):.1f})"
            f"  {best['predict'] / best[way]:5.2f} predict / this"
        )
    shared = 1 / (1 / best["input"] + 1 / best["network"])
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    bound = min(best["input"], best["network"]) if on_gpu else shared
    print(f"predict reaches {best['predict'] / bound:.2f} of the bound given by input and network on this machine")


if __name__ == "__main__":
    main()
