"""A multi-label run, from its manifest to its predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from model_trainer import (
    Accuracy,
    Classification,
    EarlyStopping,
    Hardware,
    Manifest,
    MeanAveragePrecision,
    MicroF1,
    MultiLabel,
    Output,
    OwnModel,
    Run,
    evaluate,
    load_model,
    predict,
)
from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.predictions import predict_examples
from model_trainer.training.train import Result, train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")

COLORS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 30, 40), "yellow": (220, 210, 30)}


def draw_mosaics(folder: Path, count: int, seed: int, unknown: float = 0.0) -> Path:
    """Pictures of 2 by 2 noisy colors, tagged with the colors that are in them."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    with open(folder / "tags.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "labels", "unknown"])
        for number in range(count):
            names = random.choice(list(COLORS), 4)
            pixels = np.array([COLORS[name] for name in names], int).reshape(2, 2, 3).repeat(8, 0).repeat(8, 1)
            noisy = np.clip(pixels + random.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{number}.png")
            hidden = [name for name in COLORS if random.random() < unknown]
            tags = sorted(set(names) - set(hidden))
            writer.writerow([f"{number}.png", "|".join(tags), "|".join(hidden)])
    return folder / "tags.csv"


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mosaics")
    draw_mosaics(folder / "train", 64, seed=0, unknown=0.2)
    draw_mosaics(folder / "val", 24, seed=1)
    return folder


@pytest.fixture(scope="module")
def tagging(mosaics: Path, declare_run: Callable[..., Run]) -> Run:
    classes = tuple(COLORS)
    return declare_run(
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
def run(tagging: Run, tmp_path: Path) -> Run:
    return tagging.changed("output_dir", str(tmp_path / "output"))


@pytest.fixture(scope="module")
def result(short_pipeline: None, plain_graphs: None, tagging: Run, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Trained with compiled steps; tests only read its folder."""
    return train_model(tagging.changed("output_dir", str(tmp_path_factory.mktemp("output"))))


def test_a_multi_label_run_learns_predicts_tags_and_saves_its_thresholds(result: Result, mosaics: Path) -> None:
    assert list(result.history[0]) == [
        *("epoch", "loss", "micro_f1", "val_loss", "val_map", "val_micro_f1", "learning_rate", "seconds")
    ]
    best = max(row["val_map"] for row in result.history)
    assert best > 0.9  # chance is 0.68, the fraction of mosaics that have a color

    spec = json.loads((result.path / "model_spec.json").read_text())
    assert len(spec["thresholds"]) == 4
    assert spec["task"]["type"] == "MultiLabel"
    model = load_model(result.path)
    assert list(model.thresholds) == spec["thresholds"]

    evaluation = evaluate(model)
    assert evaluation.mean_average_precision == pytest.approx(best, abs=1e-6)
    assert evaluation.thresholds == model.thresholds

    (answer,) = predict(model, str(mosaics / "val" / "0.png"))
    image = np.asarray(Image.open(mosaics / "val" / "0.png"), np.float32)[None] / 127.5 - 1
    plain = keras.models.load_model(result.path / "model_max_acc.hdf5", compile=False)
    probabilities = np.asarray(plain(image))[0]
    expected = {name for name, p, least in zip(COLORS, probabilities, model.thresholds, strict=True) if p >= least}
    assert {each["label"] for each in answer["predictions"]} == expected


def test_two_devices_give_the_validation_metrics_of_one(run: Run) -> None:
    short = run.changed("training.epochs", 1)
    one = train_model(short).history[0]
    two = train_model(short.changed("hardware", Hardware(platform="cpu", devices=2))).history[0]
    for name in ("loss", "val_loss", "val_map", "val_micro_f1"):
        assert one[name] == pytest.approx(two[name], abs=1e-5)


def test_without_validation_the_first_additive_metric_selects_the_best_model(run: Run) -> None:
    result = train_model(run.changed("val_data", None).changed("training.epochs", 1))
    assert "micro_f1" in result.history[0]
    assert (result.path / "model_max_acc.hdf5").is_file()
    assert json.loads((result.path / "model_spec.json").read_text())["thresholds"] is None


def test_classification_refuses_data_with_tags(run: Run) -> None:
    with pytest.raises(DataError, match=r"has tags[\s\S]*task=MultiLabel\(\)"):
        train_model(run.changed("task", Classification()))


class Forgets(keras.callbacks.Callback):
    """Sets all weights to zero before the third epoch."""

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 2:
            self.model.set_weights([np.zeros_like(weight) for weight in self.model.get_weights()])


@pytest.mark.parametrize("declared", [True, False], ids=["ours", "of Keras"])
def test_restoring_the_best_weights_also_restores_their_thresholds(run: Run, declared: bool) -> None:
    options = {"monitor": "val_map", "patience": 1}
    stopping = (
        EarlyStopping(**options, restore_best=True)
        if declared
        else keras.callbacks.EarlyStopping(**options, restore_best_weights=True)
    )
    result = train_model(run.changed("callbacks", (Forgets(), stopping)))
    assert len(result.history) == 3
    final, best = (load_model(result.path / f"{name}.hdf5") for name in ("final_model", "model_max_acc"))
    for mine, kept in zip(final.model.get_weights(), best.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, kept)
    assert final.thresholds == best.thresholds


def test_metrics_of_one_name_use_the_same_threshold_in_training_and_evaluation(result: Result) -> None:
    evaluation, model = evaluate(result.path), load_model(result.path)
    best = max(result.history, key=lambda row: row["val_map"])
    assert evaluation.micro_f1 == pytest.approx(best["val_micro_f1"], abs=1e-6)
    predictions = predict_examples(model, Run.load(result.path / "training_options.json").val_data.read())
    present = predictions.examples.label_rows().dense(len(model.classes)) >= 0.5
    predicted = predictions.probabilities >= np.array(model.thresholds)
    assert evaluation.micro_f1_at_thresholds == pytest.approx(f1_score(present, predicted, average="micro"))
    assert evaluation.macro_f1_at_thresholds == pytest.approx(f1_score(present, predicted, average="macro"))


def test_tags_that_occur_only_in_validation_are_ignored(
    run: Run, mosaics: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (mosaics / "val" / "tags.csv").read_text().replace("blue", "blue|plaid")
    foreign = mosaics / "val" / "foreign.csv"
    foreign.write_text(text)
    run = run.changed_all({"training.epochs": 1, "val_data": Manifest(str(foreign))})
    result = train_model(run)
    assert len(result.history) == 1
    assert f"{foreign} has 1 tag that training has not seen, such as 'plaid'" in capfd.readouterr().err
    assert evaluate(result.path).num_images == 24


def test_outputs_may_be_given_by_their_names() -> None:
    assert MultiLabel(outputs=("main",)).outputs == (Output("main"),)


def test_a_metric_for_single_labels_is_refused_for_tags(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"`task.metrics.1` is Accuracy, a metric of one class for each image"):
        train_model(run.changed("task.metrics", (MicroF1(), Accuracy())))


def test_an_own_model_is_evaluated_on_the_data_of_its_run(run: Run) -> None:
    images = keras.Input((16, 16, 3))
    tags = keras.layers.Dense(4, activation="sigmoid")(keras.layers.GlobalMaxPooling2D()(images))
    short = run.changed_all({"training.epochs": 1, "network": OwnModel(keras.Model(images, tags))})
    assert evaluate(train_model(short).path, trust=True).num_images == 24
