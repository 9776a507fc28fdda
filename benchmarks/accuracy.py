"""How accurate is a short run from random weights, compared with Keras' `fit`, and with fastai in the same time?

    apt-get install dataset-fashion-mnist
    .venv/bin/python benchmarks/accuracy.py --fastai /tmp/fastai/bin/python    about 40 minutes on 2 cores

10,000 photos of Fashion-MNIST (1,000 of each class), 64 x 64, batches of 64, flips, Adam with cosine decay from 0.001,
3 epochs; each epoch ends with validation on 2,000 photos of its test set. Keras does the same, however long it takes.
fastai trains timm's network of the same name with `fit_one_cycle` and its own default learning rate, for as many epochs
as fit into our time, at least one (`accuracy_fastai.py` says how to install it). Times include training, validation and
tracing, but not imports. Prints validation accuracy and seconds of each epoch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SOURCE = Path("/usr/share/datasets/fashion-mnist")
SIZE, BATCH_SIZE, EPOCHS, RATE = 64, 64, 3, 1e-3
TRAIN_PER_CLASS, VAL_PER_CLASS = 1000, 200
# The names of each network in Model Trainer, in Keras, and in timm.
ROWS = {
    "MobileNetV2": ("mobilenet_v2", "MobileNetV2", "mobilenetv2_100"),
    "ResNet50": ("resnet50", "ResNet50", "resnet50"),
    "EfficientNetB0": ("efficientnetb0", "EfficientNetB0", "efficientnet_b0"),
}


def unpack(folder: Path) -> None:
    """Writes `train/CLASS/N.png` and `val/CLASS/N.png`, RGB."""
    for split, prefix, count in (("train", "train", TRAIN_PER_CLASS), ("val", "t10k", VAL_PER_CLASS)):
        files = (SOURCE / f"{prefix}-images-idx3-ubyte.gz", SOURCE / f"{prefix}-labels-idx1-ubyte.gz")
        images, numbers = (gzip.decompress(file.read_bytes()) for file in files)
        pixels, labels = np.frombuffer(images[16:], np.uint8), np.frombuffer(numbers[8:], np.uint8)
        for label in range(10):
            class_folder = folder / split / f"class{label}"
            class_folder.mkdir(parents=True)
            for number in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(pixels.reshape(-1, 28, 28)[number]).convert("RGB").save(class_folder / f"{number}.png")


def train_ours(folder: Path, name: str) -> list[dict[str, float]]:
    import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

    from model_trainer import Adam, Cosine, ImageFolder, ModelSpec, RandomFlip, Run, Training, train

    run = Run(
        spec=ModelSpec.named(name, target_size=[SIZE, SIZE, 3]),
        weights=None,
        train_data=ImageFolder(folder / "train"),
        val_data=ImageFolder(folder / "val"),
        augment=(RandomFlip(),),
        training=Training(
            epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=RATE, optimizer=Adam(), schedule=Cosine()
        ),
        output_dir=str(folder / "output"),
    )
    seconds, rows = 0.0, []
    for row in train(run).history:
        seconds += row["seconds"]
        rows.append({"accuracy": row["val_accuracy"], "train_accuracy": row["accuracy"], "seconds": seconds})
    return rows


def train_keras(folder: Path, name: str) -> list[dict[str, float]]:
    import keras
    import tensorflow as tf

    def read(split: str) -> Any:
        options = {"image_size": (SIZE, SIZE), "batch_size": BATCH_SIZE, "verbose": False}
        return keras.utils.image_dataset_from_directory(folder / split, shuffle=split == "train", seed=0, **options)

    flip = keras.layers.RandomFlip("horizontal")
    train = read("train").map(lambda x, y: (flip(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    backbone = getattr(keras.applications, name)(
        include_top=False, weights=None, pooling="avg", input_shape=(SIZE, SIZE, 3)
    )
    images = keras.Input((SIZE, SIZE, 3))
    scaled = images if name.startswith("Efficient") else keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    features = keras.layers.Dropout(0.2)(backbone(scaled))
    model = keras.Model(images, keras.layers.Dense(10, activation="softmax")(features))
    steps = -(-10 * TRAIN_PER_CLASS // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows: list[dict[str, float]] = []
    started = time.perf_counter()

    def note(epoch: int, logs: dict[str, float]) -> None:
        seconds = time.perf_counter() - started
        rows.append({"accuracy": logs["val_accuracy"], "train_accuracy": logs["accuracy"], "seconds": seconds})

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    model.fit(train.prefetch(2), validation_data=read("val"), epochs=EPOCHS, verbose=0, callbacks=[callback])
    return rows


def run_worker(command: list[str]) -> list[dict[str, float]]:
    """Runs a command; returns the rows, as JSON, that it prints in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    rows: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fastai", help="a Python that has fastai and timm")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, folder, name = arguments.worker
        rows = train_ours(Path(folder), name) if kind == "ours" else train_keras(Path(folder), name)
        print(json.dumps(rows))
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        for title in arguments.rows:
            ours, keras, timm = ROWS[title]
            itself = [sys.executable, __file__, "--worker"]
            results = {"ours": run_worker([*itself, "ours", folder, ours])}
            results["keras"] = run_worker([*itself, "keras", folder, keras])
            if arguments.fastai:
                options = [timm, str(SIZE), str(BATCH_SIZE), str(results["ours"][-1]["seconds"])]
                results["fastai"] = run_worker([arguments.fastai, str(HERE / "accuracy_fastai.py"), folder, *options])
            print(title, flush=True)
            for name, rows in results.items():
                texts = [f"{row['accuracy']:.3f} ({row['seconds']:.0f} s)" for row in rows]
                print(
                    f"    {name:<7} validation {', '.join(texts)}; training {rows[-1]['train_accuracy']:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
