"""A tagger from a manifest to its answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from model_trainer import (
    Classification,
    Hardware,
    Manifest,
    MeanAveragePrecision,
    MicroF1,
    MultiLabel,
    OwnModel,
    Run,
    evaluate,
    load_model,
    predict,
)
from model_trainer.errors import DataError
from model_trainer.training.train import Result, train_model

COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 30, 40), "yellow": (220, 210, 30)}


def draw_mosaics(folder: Path, count: int, seed: int, unknown: float = 0.0) -> Path:
    """Pictures of 2 by 2 noisy colours, tagged with the colours that are in them."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    with open(folder / "tags.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "labels", "unknown"])
        for number in range(count):
            names = random.choice(list(COLOURS), 4)
            pixels = np.array([COLOURS[name] for name in names], int).reshape(2, 2, 3).repeat(8, 0).repeat(8, 1)
            noisy = np.clip(pixels + random.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{number}.png")
            hidden = [name for name in COLOURS if random.random() < unknown]
            tags = sorted(set(names) - set(hidden))
            writer.writerow([f"{number}.png", "|".join(tags), "|".join(hidden)])
    return folder / "tags.csv"


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mosaics")
    draw_mosaics(folder / "train", 64, seed=0, unknown=0.2)
    draw_mosaics(folder / "val", 24, seed=1)
    return folder


@pytest.fixture
def run(mosaics: Path, make_run: Callable[..., Run]) -> Run:
    classes = tuple(COLOURS)
    return make_run(
        train_data=Manifest(str(mosaics / "train" / "tags.csv"), classes=classes),
        val_data=Manifest(str(mosaics / "val" / "tags.csv"), classes=classes),
        task=MultiLabel(metrics=(MeanAveragePrecision(), MicroF1())),
        network__pooling="max",
        network__dropout_rate=0.0,
        training__batch_size=8,
        training__epochs=4,
        training__optimizer="Adam",
        training__learning_rate=0.02,
    )


@pytest.fixture
def result(run: Run) -> Result:
    return train_model(run)


def test_a_tagger_learns_says_what_it_sees_and_remembers_its_thresholds(result: Result, mosaics: Path) -> None:
    assert list(result.history[0]) == [
        *("epoch", "loss", "micro_f1", "val_loss", "val_map", "val_micro_f1", "learning_rate", "seconds")
    ]
    best = max(row["val_map"] for row in result.history)
    assert best > 0.9  # by chance 0.68: so often a colour is in a mosaic

    spec = json.loads((result.path / "model_spec.json").read_text())
    assert len(spec["thresholds"]) == 4
    assert spec["task"]["type"] == "MultiLabel"
    model = load_model(result.path)
    assert list(model.thresholds) == spec["thresholds"]

    found = evaluate(model)
    assert found.mean_average_precision == pytest.approx(best, abs=1e-6)
    assert found.thresholds == model.thresholds

    (answer,) = predict(model, str(mosaics / "val" / "0.png"))
    image = np.asarray(Image.open(mosaics / "val" / "0.png"), np.float32)[None] / 127.5 - 1
    plain = keras.models.load_model(result.path / "model_max_acc.hdf5", compile=False)
    probabilities = np.asarray(plain(image))[0]
    expected = {name for name, p, least in zip(COLOURS, probabilities, model.thresholds, strict=True) if p >= least}
    assert {each["label"] for each in answer["predictions"]} == expected


def test_two_devices_validate_as_one(run: Run) -> None:
    short = run.changed("training.epochs", 1)
    one = train_model(short).history[0]
    two = train_model(short.changed("hardware", Hardware(platform="cpu", devices=2))).history[0]
    for name in ("loss", "val_loss", "val_map", "val_micro_f1"):
        assert one[name] == pytest.approx(two[name], abs=1e-5)


def test_without_validation_the_first_counted_metric_decides(run: Run) -> None:
    result = train_model(run.changed("val_data", None).changed("training.epochs", 1))
    assert "micro_f1" in result.history[0]
    assert (result.path / "model_max_acc.hdf5").is_file()
    assert json.loads((result.path / "model_spec.json").read_text())["thresholds"] is None


def test_tags_are_no_task_for_classification(run: Run) -> None:
    with pytest.raises(DataError, match=r"has tags[\s\S]*task=MultiLabel\(\)"):
        train_model(run.changed("task", Classification()))


def test_a_model_of_ones_own_is_evaluated_on_the_data_of_its_run(run: Run) -> None:
    images = keras.Input((16, 16, 3))
    tags = keras.layers.Dense(4, activation="sigmoid")(keras.layers.GlobalMaxPooling2D()(images))
    short = run.changed_all({"training.epochs": 1, "network": OwnModel(keras.Model(images, tags))})
    assert evaluate(train_model(short).path, trust=True).num_images == 24
