"""How long does a batch take with each inference engine, compared with `model.predict`?

    .venv/bin/python benchmarks/engines.py                                   MobileNetV2 at 224 x 224
    .venv/bin/python benchmarks/engines.py mobilenet_v2 efficientnet_b0 resnet50

The networks have random weights, but batch normalization has the statistics of the images, so that outputs differ
between images. All engines compute the same batches in turn, of 1 and of 8 images. Prints for each the wall and the CPU
time in milliseconds (the shortest of the rounds, because other work on the machine can only add to it), the CPU time of
`model.predict` divided by its own, and its largest difference from `model.predict` relative to the largest output.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np

from model_trainer import Classification, ModelSpec
from model_trainer.inference.choose import make_engine, sample_images
from model_trainer.model_files.trained_model import TrainedModel


def random_model(name: str) -> TrainedModel:
    """A network with random weights whose images differ in their outputs."""
    spec = ModelSpec.named(name)
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, str(spec.class_).rpartition(".")[2])(weights=None, classes=100)
    trained = TrainedModel(network, spec, Classification(), tuple(map(str, range(100))), Path("model.hdf5"))
    norms = [each for each in network._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]
    momentums = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    network(spec.preprocess(sample_images(trained, 8)), training=True)
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum
    return trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=["mobilenet_v2"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.specs:
        trained = random_model(name)
        ways: dict[str, Callable[[np.ndarray], Any]] = {
            "model.predict": lambda images, trained=trained: trained.model.predict(
                trained.spec.preprocess(images), verbose=0
            ),
            "tf.function": trained.probabilities,
            "keras": make_engine(trained, "keras"),
            "keras bfloat16": make_engine(trained, "keras", "bfloat16"),
            "openvino": make_engine(trained, "openvino"),
            "openvino bfloat16": make_engine(trained, "openvino", "bfloat16"),
        }
        for batch_size in (1, 8):
            images = sample_images(trained, batch_size)
            expected = np.asarray(ways["model.predict"](images))
            seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for number in range(options.rounds + 1):
                for way, compute in ways.items():
                    wall, processor = time.perf_counter(), time.process_time()
                    compute(images)
                    if number:  # the first call traces
                        seconds[way].append((time.perf_counter() - wall, time.process_time() - processor))
            base = min(each[1] for each in seconds["model.predict"])
            for way, measured in seconds.items():
                wall, processor = (min(each[index] for each in measured) for index in (0, 1))
                change = np.abs(np.asarray(ways[way](images)) - expected).max() / np.abs(expected).max()
                print(
                    f"{name:20} batch {batch_size} {way:18} {wall * 1000:8.1f} ms {processor * 1000:8.1f} ms CPU "
                    f"{base / processor:6.2f} x  change {change:.1e}"
                )


if __name__ == "__main__":
    main()
