"""Predictions for labeled images: which rows, test-time augmentation, ensembles."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from model_trainer import Classification, ImageFolder, ModelSpec, load_image
from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.evaluate import evaluate_ensemble, evaluate_model
from model_trainer.evaluation.predictions import average_predictions, load_resized_images, predict_examples
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.sources.examples import Examples

pytestmark = pytest.mark.usefixtures("short_pipeline")

CLASSES = ("blue", "green", "red")


def model_of(seed: int, classes: tuple[str, ...] = CLASSES) -> TrainedModel:
    """A linear model of all pixels, which gives a mirrored image other probabilities."""
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    spec = ModelSpec(target_size=[8, 8, 3], preprocess_func="between_plus_minus_1")
    return TrainedModel(network, spec, Classification(), classes, Path("model.hdf5"))


@pytest.fixture(scope="module")
def examples(colors: Path) -> Examples:
    return ImageFolder(colors / "val").read()


@pytest.fixture
def with_broken(colors: Path, tmp_path: Path) -> Examples:
    """Three images, of which the second is broken."""
    paths = [str(colors / "val" / name / "0.png") for name in CLASSES]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG truncated")
    return Examples.of_files(
        [paths[0], str(tmp_path / "broken.png"), paths[2]], np.array([0, 1, 2]), CLASSES, "three images"
    )


def by_keras(model: TrainedModel, examples: Examples, flip: bool = False) -> np.ndarray:
    images = np.stack([load_image(name, model.spec) for name in examples.names()])
    return np.asarray(model.model(images[:, :, ::-1] if flip else images))


def test_predictions_equal_those_of_the_plain_keras_model(examples: Examples) -> None:
    model = model_of(0)
    predictions = predict_examples(model, examples, batch_size=4)
    assert predictions.rows.tolist() == list(range(9))
    np.testing.assert_allclose(predictions.probabilities, by_keras(model, examples), atol=1e-6)


def test_flips_average_an_image_and_its_mirror_image(examples: Examples) -> None:
    model = model_of(0)
    predictions = predict_examples(model, examples, tta="flips")
    plain, mirrored = by_keras(model, examples), by_keras(model, examples, flip=True)
    assert np.abs(plain - mirrored).max() > 1e-3
    np.testing.assert_allclose(predictions.probabilities, (plain + mirrored) / 2, atol=1e-6)


def test_an_unreadable_image_has_no_row(with_broken: Examples) -> None:
    predictions = predict_examples(model_of(0), with_broken)
    assert predictions.rows.tolist() == [0, 2]
    assert [Path(name).parent.name for name in predictions.examples.names()] == ["blue", "red"]
    assert predictions.num_bad == 1


def test_without_a_readable_image_the_error_names_the_first_image(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG truncated")
    examples = Examples.of_files([str(tmp_path / "broken.png")] * 2, np.array([0, 1]), CLASSES, "two images")
    with pytest.raises(
        DataError, match=r"two images: none of its 2 images could be read; the first: .*broken.png .*doctor"
    ) as e:
        predict_examples(model_of(0), examples)
    assert "max_bad" not in str(e.value)


def test_an_ensemble_has_the_mean_of_the_probabilities(examples: Examples) -> None:
    models = [model_of(seed) for seed in (0, 1)]
    evaluated = evaluate_ensemble(models, examples)
    expected = np.mean([by_keras(model, examples) for model in models], axis=0)
    np.testing.assert_allclose(evaluated.predictions.probabilities, expected, atol=1e-6)
    labels = examples.label_rows().most_likely()
    assert evaluated.evaluation.estimates()["accuracy"].value == pytest.approx((expected.argmax(1) == labels).mean())


def test_an_ensemble_of_a_model_with_itself_predicts_as_the_model(examples: Examples) -> None:
    one = predict_examples(model_of(0), examples)
    np.testing.assert_allclose(average_predictions([one, one]).probabilities, one.probabilities, rtol=1e-6)


def test_an_ensemble_predicts_only_images_that_all_its_models_could_read(with_broken: Examples) -> None:
    whole = predict_examples(model_of(0), with_broken.take(np.array([0, 2])))
    partial = predict_examples(model_of(1), with_broken)
    # The rows of both refer to the same table.
    from dataclasses import replace

    ensemble = average_predictions([replace(whole, rows=np.array([0, 1])), partial])
    assert ensemble.rows.tolist() == [0]
    np.testing.assert_allclose(ensemble.probabilities[0], (whole.probabilities[0] + partial.probabilities[0]) / 2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("red", "green", "blue"), "the same classes in another order"),
        (("blue", "green", "pink"), "'pink' is in one of them only, and so are 1 more"),
    ],
)
def test_an_ensemble_of_models_with_different_classes_is_refused(
    examples: Examples, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_ensemble([model_of(0), model_of(1, classes)], examples)


def test_images_are_returned_as_the_model_sees_them(examples: Examples) -> None:
    model = model_of(0)
    images = load_resized_images(model, examples, [5, 1])
    names = examples.names()
    expected = np.stack([load_image(names[index], model.spec) for index in (5, 1)])
    np.testing.assert_allclose(model.spec.preprocess(images.astype(np.float32)), expected, atol=1e-6)


def test_the_evaluation_counts_each_image_once(with_broken: Examples) -> None:
    evaluated = evaluate_model(model_of(0), with_broken)
    assert (evaluated.evaluation.num_images, evaluated.evaluation.num_bad) == (2, 1)
