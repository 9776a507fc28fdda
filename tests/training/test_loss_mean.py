"""Weights of classes and examples have the meaning of Keras' `class_weight` and `sample_weight`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from model_trainer import Classification, ImageFolder, Manifest, MultiLabel, Run
from model_trainer.pipeline.batch import Batch
from model_trainer.training.prepare import prepare
from model_trainer.training.train import train_model

MakeRun = Callable[..., Run]

# Eager steps: a mean is the same, and nothing has to be compiled.
pytestmark = pytest.mark.usefixtures("eager_steps", "short_pipeline")

CLASS_WEIGHTS = {"blue": 3.0, "green": 0.5, "red": 0.0}
WEIGHTS = [0.0, 0.5, 1.0, 2.0, 5.0]


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return make_run(network__dropout_rate=0.0, val_data=None, training__epochs=3, training__batch_size=5)


@pytest.fixture
def weighted(colors: Path, tmp_path: Path) -> Manifest:
    """The images of `colors/train`; one image of each class has weight 0."""
    with open(tmp_path / "weights.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "label", "weight"])
        for path in sorted((colors / "train").rglob("*.png")):
            writer.writerow([str(path), path.parent.name, WEIGHTS[int(path.stem)]])
    return Manifest(str(tmp_path / "weights.csv"))


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in train_model(run).history]


def losses_of_fit(run: Run, loss: Any, class_weight: dict[int, float] | None = None) -> list[float]:
    """The losses of Keras' own loop, on the same batches from the same weights.

    Args:
        class_weight: replaces the weights that the source gives to its examples.
    """
    prepared = prepare(run)
    model = prepared.plain.network.model
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)

    def columns(batch: Batch) -> tuple[Any, ...]:
        return (run.spec.preprocess(batch.inputs), batch.targets) + (() if class_weight else (batch.weights,))

    batches = prepared.train_pipeline.training(3).map(columns)
    options = {"epochs": 3, "steps_per_epoch": 3, "shuffle": False, "verbose": 0, "class_weight": class_weight}
    losses: list[float] = model.fit(batches, **options).history["loss"]
    return losses


def test_class_weights_give_the_losses_of_fit(run: Run) -> None:
    ours = losses(run.changed("task", Classification(class_weights=CLASS_WEIGHTS)))
    by_index = dict(enumerate(CLASS_WEIGHTS.values()))
    assert ours == pytest.approx(losses_of_fit(run, "sparse_categorical_crossentropy", by_index), abs=1e-5)


def test_example_weights_give_the_losses_of_fit(run: Run, weighted: Manifest) -> None:
    run = run.changed("train_data", weighted)
    assert losses(run) == pytest.approx(losses_of_fit(run, "sparse_categorical_crossentropy"), abs=1e-5)


def test_example_weights_with_tags_give_the_losses_of_fit(run: Run, colors: Path, tmp_path: Path) -> None:
    with open(tmp_path / "tags.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "labels", "weight"])
        for path in sorted((colors / "train").rglob("*.png")):
            tags = "blue|red" if path.stem == "0" else path.parent.name
            writer.writerow([str(path), tags, WEIGHTS[int(path.stem)]])
    source = Manifest(str(tmp_path / "tags.csv"), classes=("blue", "green", "red"))
    run = run.changed_all({"train_data": source, "task": MultiLabel()})
    assert losses(run) == pytest.approx(losses_of_fit(run, "binary_crossentropy"), abs=1e-5)


def test_four_devices_and_accumulation_give_the_same_weighted_loss(run: Run, weighted: Manifest) -> None:
    task = Classification(class_weights=CLASS_WEIGHTS)
    run = run.changed_all({"train_data": weighted, "task": task, "training.epochs": 1})
    expected = losses(run)
    for name, value in (("hardware.devices", 4), ("training.accumulation_steps", 2)):
        assert losses(run.changed(name, value)) == pytest.approx(expected, abs=1e-5), (name, value)


def test_the_weighted_validation_loss_does_not_depend_on_the_batch_size(run: Run, weighted: Manifest) -> None:
    run = run.changed_all({"val_data": weighted, "training.epochs": 1, "training.learning_rate": 1e-12})
    one, other = (train_model(run.changed("training.batch_size", size)).history[0]["val_loss"] for size in (4, 15))
    assert one == pytest.approx(other, abs=1e-5)
    model = prepare(run).plain.network.model
    examples = weighted.read()
    images = np.stack([keras.utils.img_to_array(keras.utils.load_img(examples.name(index))) for index in range(15)])
    small = keras.ops.image.resize(images, (16, 16), antialias=True)
    probabilities = np.asarray(model(run.spec.preprocess(np.asarray(small).round())))
    likelihoods = probabilities[np.arange(15), examples.labels]
    assert one == pytest.approx((examples.weights * -np.log(likelihoods)).sum() / 15, rel=0.02)  # resized by Keras


def test_an_unreadable_image_does_not_count_in_the_mean_loss(
    run: Run, draw_folder: Callable[..., Path], tmp_path: Path, colors: Path
) -> None:
    folder = draw_folder(tmp_path / "train", 5)
    (folder / "red" / "broken.png").write_bytes(b"no image")
    run = run.changed_all({"training.epochs": 1, "training.learning_rate": 1e-12})
    whole, broken = (losses(run.changed("train_data", ImageFolder(each))) for each in (colors / "train", folder))
    assert broken == pytest.approx(whole, abs=1e-5)


def test_the_mean_loss_of_earlier_versions_divides_by_the_sum_of_the_weights(run: Run, weighted: Manifest) -> None:
    changes = {"train_data": weighted, "training.epochs": 1, "training.learning_rate": 1e-12, "training.batch_size": 15}
    run = run.changed_all(changes)
    mean_weight = sum(WEIGHTS) / len(WEIGHTS)
    (by_examples,), (by_weights,) = losses(run), losses(run.changed("training.loss_mean", "weights"))
    assert by_examples == pytest.approx(by_weights * mean_weight, rel=1e-5)
