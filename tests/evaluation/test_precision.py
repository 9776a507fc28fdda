"""A faster precision passes its check if predicted labels and main metric stay close to those of float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from model_trainer import Classification, ImageFolder, ModelSpec
from model_trainer.errors import ConfigError
from model_trainer.evaluation import precision
from model_trainer.evaluation.precision import PrecisionComparison, compare_precisions
from model_trainer.inference.precision_check import hash_of
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.sources.examples import Examples

pytestmark = pytest.mark.usefixtures("short_pipeline")

CLASSES = ("blue", "green", "red")


class InaccurateEngine:
    """An engine that applies `change` to the probabilities of the model."""

    name = "keras"
    precision = "bfloat16"

    def __init__(self, trained: TrainedModel, change: Any) -> None:
        self.trained, self.change = trained, change

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.change(self.trained.probabilities(images)))


@pytest.fixture(scope="module")
def examples(colors: Path) -> Examples:
    return ImageFolder(colors / "val").read()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model that predicts all images correctly: each class is the color channel with the largest mean."""
    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D()])
    network.add(keras.layers.Dense(3, activation="softmax"))
    network.layers[-1].set_weights([np.eye(3)[:, ::-1] * 5, np.zeros(3)])
    path = tmp_path_factory.mktemp("model") / "model.hdf5"
    path.write_bytes(b"weights")
    spec = ModelSpec(target_size=[16, 16, 3], preprocess_func="between_plus_minus_1")
    return TrainedModel(network, spec, Classification(), CLASSES, path)


def compared(
    trained: TrainedModel, examples: Examples, monkeypatch: pytest.MonkeyPatch, change: Any
) -> PrecisionComparison:
    monkeypatch.setattr(
        precision, "make_engine", lambda model, *_: InaccurateEngine(replace(model, engine=None), change)
    )
    monkeypatch.setattr(precision, "measure", lambda engines, images: [0.3, 0.1])
    return compare_precisions(trained, examples, "bfloat16", "keras")


def test_small_changes_of_the_probabilities_pass(
    trained: TrainedModel, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = compared(trained, examples, monkeypatch, lambda rows: rows + np.float32([0.004, 0, 0])).check
    assert (check.passed, check.same_labels, check.num_images) == (True, 1.0, 9)
    assert check.largest_change == pytest.approx(0.004, abs=1e-6)
    assert (check.metric, check.before, check.after) == ("accuracy", 1.0, 1.0)
    assert check.speed == pytest.approx(3.0)
    assert check.sha256 == hash_of(trained.path)


def test_changed_labels_do_not_pass(trained: TrainedModel, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compared(trained, examples, monkeypatch, lambda rows: np.roll(rows, 1, axis=1))
    assert (result.check.passed, result.check.same_labels, result.check.after) == (False, 0.0, 0.0)
    assert result.correct is not None
    assert result.correct.difference == -1.0


def test_nan_probabilities_do_not_pass(
    trained: TrainedModel, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(rows: np.ndarray) -> np.ndarray:
        return np.where(rows > rows.min(axis=1, keepdims=True), rows, np.nan)

    check = compared(trained, examples, monkeypatch, overflow).check
    assert (check.passed, check.largest_change) == (False, 1.0)  # JSON has no NaN


def test_float32_needs_no_check(trained: TrainedModel, examples: Examples) -> None:
    with pytest.raises(ConfigError, match="should be bfloat16 or float16, got float32, which needs no check"):
        compare_precisions(trained, examples, "float32")
