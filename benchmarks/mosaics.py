#!/usr/bin/env python3
"""Does a tagger learn? Mosaics of 2 by 2 photos of the built-in sample, tagged with the clothes of all four.

    .venv/bin/python benchmarks/mosaics.py [--epochs 8]

Trains a small network from random weights for about a minute on 2 cores, and prints its mean average precision on 400
mosaics of unseen photos, and that of random guessing, which is the fraction of images that have the tag.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
from PIL import Image

from model_trainer import (
    Adam,
    Cosine,
    Manifest,
    MeanAveragePrecision,
    MicroF1,
    ModelSpec,
    MultiLabel,
    OwnModel,
    Run,
    Training,
    evaluate,
    train,
)
from model_trainer.sources.sample import unpack_sample


def make_mosaics(photos: Path, folder: Path, count: int, seed: int) -> Path:
    """Writes `count` mosaics and the manifest `folder.csv`, with tags in one column, separated by "|"."""
    random = np.random.default_rng(seed)
    files = sorted(photos.glob("*/*.png"))
    folder.mkdir(parents=True)
    table = folder.with_suffix(".csv")
    with open(table, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "labels"])
        for number in range(count):
            indices = random.choice(len(files), 4, replace=False)
            mosaic = Image.new("L", (56, 56))
            for position, index in enumerate(indices):
                mosaic.paste(Image.open(files[index]), (28 * (position % 2), 28 * (position // 2)))
            mosaic.save(folder / f"{number}.png")
            tags = sorted({files[index].parent.name for index in indices})
            writer.writerow([f"{folder.name}/{number}.png", "|".join(tags)])
    return table


def make_network(num_tags: int) -> keras.Model:
    """A network of four convolutions with 0.4 million weights."""
    images = features = keras.Input((56, 56, 1))
    for filters in (32, 64, 128, 256):
        features = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(features)
        features = keras.layers.MaxPooling2D()(features)
    features = keras.layers.GlobalMaxPooling2D()(features)
    return keras.Model(images, keras.layers.Dense(num_tags, activation="sigmoid")(features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = unpack_sample(Path(folder) / "sample")
        train_table = make_mosaics(sample / "train", Path(folder) / "train", 2000, seed=0)
        val_table = make_mosaics(sample / "val", Path(folder) / "val", 400, seed=1)
        run = Run(
            name="mosaics",
            spec=ModelSpec(preprocess_func="between_plus_minus_1", target_size=[56, 56, 1]),
            network=OwnModel(make_network(10)),
            train_data=Manifest(str(train_table)),
            val_data=Manifest(str(val_table)),
            augment=(),
            task=MultiLabel(metrics=(MeanAveragePrecision(), MicroF1())),
            training=Training(
                epochs=arguments.epochs, batch_size=32, learning_rate=2e-3, optimizer=Adam(), schedule=Cosine()
            ),
            output_dir=str(Path(folder) / "output"),
        )
        started = time.monotonic()
        result = train(run)
        seconds = time.monotonic() - started
        evaluation = evaluate(str(result.path), trust=True)
        chance = np.mean(evaluation.support) / evaluation.num_images
        print(
            f"mean average precision {evaluation.mean_average_precision:.3f}, by chance {chance:.3f}; {seconds:.0f} s"
        )
        f1 = f"micro F1 {evaluation.micro_f1_at_thresholds:.3f}, macro F1 {evaluation.macro_f1_at_thresholds:.3f}"
        print(f"{f1} at the fitted thresholds")


if __name__ == "__main__":
    main()
