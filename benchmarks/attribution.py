"""Do attribution maps highlight the object of the class, and would another method do it better?

    .venv/bin/python benchmarks/attribution.py            about 4 minutes on 2 cores
    .venv/bin/python benchmarks/attribution.py --speed    the time of a map relative to a prediction; about 2 minutes

Small networks learn to classify photos of clothes that lie anywhere on a noisy canvas. Then each canvas has two photos
of different classes, so that it is known where the map of each class should be. Prints, for each head and method, how
often the maximum of the map is on the right photo (by chance: 9 %), the fraction of the map that is on it, and how
often a map is empty. "missed" are canvases with one photo that were misclassified, explained for the true class.

With --speed: 150 images of 224 x 224 and a MobileNetV2; maps and predictions in turn, for several batch sizes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
import tensorflow as tf

from model_trainer import Classification, ImageFolder, ModelSpec, Network, TrainedModel
from model_trainer.evaluation.attribution import GradCAM, overlay
from model_trainer.images.decode import decode_with_pillow
from model_trainer.network.build import build_network
from model_trainer.sources.sample import unpack_sample

SIDE, CANVAS = 28, 96
layers = keras.layers


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The photos, uint8 `(num_images, 28, 28)`, and their classes."""
    examples = ImageFolder(folder).read()
    photos = [
        decode_with_pillow(examples.images.read(int(row)), (0, 0, 0), with_alpha=False)[..., 0] for row in examples.rows
    ]
    return np.stack(photos), np.asarray(examples.labels)


class Canvases:
    """Photos on noise, at random positions without overlap."""

    def __init__(self, photos: np.ndarray, seed: int) -> None:
        self._photos = photos
        self._random = np.random.default_rng(seed)

    def draw(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws canvases with the photos at `indices`, `(n, photos per canvas)`.

        Returns:
            The canvases, float32 `(n, 96, 96, 1)`, and the top left corners of the photos, `(n, photos per canvas, 2)`.
        """
        images = self._random.integers(0, 90, (len(indices), CANVAS, CANVAS, 1)).astype(np.float32)
        corners = np.zeros((*indices.shape, 2), int)
        for number, row in enumerate(indices):
            while True:
                corners[number] = self._random.integers(0, CANVAS - SIDE, (len(row), 2))
                if len(row) == 1 or np.abs(corners[number, 0] - corners[number, 1]).max() >= SIDE:
                    break
            for photo, (top, left) in zip(row, corners[number], strict=True):
                images[number, top : top + SIDE, left : left + SIDE, 0] = self._photos[photo]
        return images / 127.5 - 1.0, corners


def make_network(head: str) -> tuple[keras.Model, keras.Model]:
    """The backbone, and a head that returns logits."""
    images = tensor = keras.Input((CANVAS, CANVAS, 1))
    for filters, strides in ((16, 2), (32, 2), (64, 2), (64, 1)):
        tensor = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(tensor)
        tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(tensor))
    backbone = keras.Model(images, tensor)
    features = tensor = keras.Input(backbone.output_shape[1:])
    if head == "flatten":
        tensor = layers.Dropout(0.2)(layers.Flatten()(tensor))
    else:
        tensor = (layers.GlobalAveragePooling2D if head == "average" else layers.GlobalMaxPooling2D)()(tensor)
    return backbone, keras.Model(features, layers.Dense(10)(tensor))


def train(head: str, photos: np.ndarray, labels: np.ndarray, epochs: int) -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(0)
    backbone, top = make_network(head)
    model = keras.Sequential([backbone, top])
    canvases = Canvases(photos, seed=0)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        random = np.random.default_rng(0)
        for _ in range(epochs):
            for indices in np.array_split(random.permutation(len(photos)), len(photos) // 50):
                yield canvases.draw(indices[:, None])[0], labels[indices]

    steps = epochs * (len(photos) // 50)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(batches(), steps_per_epoch=steps, verbose=0)
    return backbone, top


Objective = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

OBJECTIVES: dict[str, Objective] = {
    "logit": lambda logits, one_hot: tf.reduce_sum(logits * one_hot),
    "logit less the mean logit": lambda logits, one_hot: tf.reduce_sum(
        (logits - tf.reduce_mean(logits, 1, keepdims=True)) * one_hot
    ),
    "log-probability": lambda logits, one_hot: tf.reduce_sum(tf.nn.log_softmax(logits) * one_hot),
}


def maps_of(
    backbone: keras.Model, top: keras.Model, images: np.ndarray, classes: np.ndarray, objective: Objective, method: str
) -> np.ndarray:
    with tf.GradientTape() as tape:
        images = tf.constant(images)
        tape.watch(images)
        features = backbone(images, training=False)
        explained = objective(top(features, training=False), tf.one_hot(classes, 10))
    from_images, gradient = tape.gradient(explained, [images, features])
    if method == "gradient by pixels":
        return tf.abs(from_images[..., 0]).numpy()
    if method == "Grad-CAM":
        gradient = tf.reduce_mean(gradient, [1, 2], keepdims=True)
    elif method == "Grad-CAM++":
        sums = tf.reduce_sum(features, [1, 2], keepdims=True)
        denominator = 2 * gradient**2 + sums * gradient**3
        alpha = tf.math.divide_no_nan(gradient**2, denominator)
        gradient = tf.reduce_sum(alpha * tf.nn.relu(gradient), [1, 2], keepdims=True)
    return tf.nn.relu(tf.reduce_sum(gradient * features, -1)).numpy()


def score(maps: np.ndarray, corners: np.ndarray) -> str:
    """The fraction of maxima on the object, the mean fraction of the map on the object, and the fraction of empty maps.

    Args:
        maps: `(n, height, width)`, at least 0.
        corners: the top left corner of the object in each canvas, `(n, 2)`.
    """
    large = tf.image.resize(maps[..., None], (CANVAS, CANVAS)).numpy()[..., 0]
    peaks_on_object, fractions_on_object = [], []
    for each, (top, left) in zip(large, corners, strict=True):
        peak = np.unravel_index(each.argmax(), each.shape)
        inside = each[top : top + SIDE, left : left + SIDE].sum()
        is_empty = each.max() <= 0
        peaks_on_object.append(not is_empty and top <= peak[0] < top + SIDE and left <= peak[1] < left + SIDE)
        fractions_on_object.append(0.0 if is_empty else inside / each.sum())
    empty = np.mean(large.max(axis=(1, 2)) <= 0)
    return f"{np.mean(peaks_on_object):5.0%} {np.mean(fractions_on_object):8.0%} {empty:5.0%}"


def compare_speed(rounds: int = 5) -> None:
    spec = ModelSpec.named("mobilenet_v2")
    network = build_network(spec, Network(), Classification(), 10)
    trained = TrainedModel(network.model, spec, Classification(), tuple("abcdefghij"), Path("model.hdf5"))
    images = np.random.default_rng(0).integers(0, 256, (150, 224, 224, 3)).astype(np.uint8)
    classes = np.arange(150) % 10
    started = time.perf_counter()
    cam = GradCAM(trained)
    maps = cam(images[:1], classes[:1])
    print(f"traced in {time.perf_counter() - started:.1f} s")
    trained.probabilities(images[:1])
    for batch_size in (4, 8, 16, 32):
        seconds, ratios = [], []
        for _ in range(rounds):
            started = time.perf_counter()
            for start in range(0, len(images), batch_size):
                trained.probabilities(images[start : start + batch_size])
            predicted = time.perf_counter()
            maps = cam(images, classes, batch_size)
            seconds.append(time.perf_counter() - predicted)
            ratios.append(seconds[-1] / (predicted - started))
        print(
            f"batches of {batch_size}: {statistics.median(seconds):.2f} s, {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) times that of predictions",
            flush=True,
        )
    started = time.perf_counter()
    for image, each in zip(images, maps, strict=True):
        overlay(image, each)
    print(f"150 overlays: {time.perf_counter() - started:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed:
        compare_speed()
        return
    with tempfile.TemporaryDirectory() as folder:
        sample = unpack_sample(Path(folder) / "sample")
        photos, labels = read(sample / "train")
        val_photos, val_labels = read(sample / "val")
    random = np.random.default_rng(1)
    canvases = Canvases(val_photos, seed=2)
    pairs = np.stack([random.permutation(len(val_photos)), random.permutation(len(val_photos))], axis=1)
    pairs = pairs[val_labels[pairs[:, 0]] != val_labels[pairs[:, 1]]]
    two, two_corners = canvases.draw(pairs)
    one, one_corners = canvases.draw(np.arange(len(val_photos))[:, None])
    for head in ("average", "max", "flatten"):
        backbone, top = train(head, photos, labels, arguments.epochs)
        logits = top.predict(backbone.predict(one, verbose=0), verbose=0)
        missed = logits.argmax(1) != val_labels
        print(f"{head}: accuracy {1 - missed.mean():.3f}, {missed.sum()} missed, mean logit {logits.mean():.2f}")
        print(f"{'':40s} two objects           missed\n{'':40s} {' peak fraction empty ' * 2}")
        for method in ("Grad-CAM", "Grad-CAM++", "HiResCAM", "gradient by pixels"):
            for name, objective in OBJECTIVES.items():
                if method in ("Grad-CAM++", "gradient by pixels") and name != "logit":
                    continue
                of_two = maps_of(backbone, top, two, val_labels[pairs[:, 0]], objective, method)
                of_missed = maps_of(backbone, top, one[missed], val_labels[missed], objective, method)
                scores = score(of_two, two_corners[:, 0]), score(of_missed, one_corners[missed, 0])
                print(f"{method + ', ' + name:40s} {scores[0]}  {scores[1]}", flush=True)


if __name__ == "__main__":
    main()
