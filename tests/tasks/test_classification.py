from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from model_trainer import Accuracy, Classification, CrossEntropy, Focal, Output
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows
from model_trainer.tasks.task import Factors

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (6, 3)).astype(np.float32)
FACTORS = Factors.ones(3)
LABELS = np.array([0, 0, 0, 1, 1, 2], np.int32)


def examples(labels: np.ndarray = LABELS, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Examples:
    return Examples.of_files([f"{number}.jpg" for number in range(len(labels))], labels, classes, origin="data/train")


def test_label_smoothing_matches_keras() -> None:
    task = Classification(label_smoothing=0.2)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2, reduction=None)
    targets = task.targets(LABELS, 3)
    np.testing.assert_allclose(task.losses(targets, [LOGITS], FACTORS), expected(targets, LOGITS), rtol=1e-5)


def test_balanced_class_weights_match_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(
        Classification(class_weights="balanced").factors(examples()).class_weights, expected, rtol=1e-6
    )


def test_class_weights_by_name_are_1_for_the_other_classes() -> None:
    factors = Classification(class_weights={"dog": 2.5}).factors(examples()).class_weights
    assert factors.tolist() == [1.0, 2.5, 1.0]


def test_a_weight_for_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`task.class_weights.dgo` names a class .* Did you mean 'dog'\?"):
        Classification(class_weights={"dgo": 2.0}).check(examples())


def test_soft_labels_are_targets_unchanged_and_average_the_class_weights() -> None:
    soft = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]], np.float32)
    task = Classification(class_weights={"dog": 3.0})
    targets = task.targets(tf.constant(soft), 3)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)(soft, LOGITS[:2])
    np.testing.assert_allclose(task.losses(targets, [LOGITS[:2]], FACTORS), expected, rtol=1e-5)
    weights = task.example_weights(targets, tf.constant([1.0, 2.0]), task.factors(examples()))
    np.testing.assert_allclose(weights, [0.7 + 0.2 * 3 + 0.1, 2 * (0.5 * 3 + 0.5)], rtol=1e-6)


def test_metrics_of_soft_labels_take_the_most_probable_class_as_true() -> None:
    soft = tf.constant([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]])
    predicted = tf.constant([[0.9, 0.1, 0.0], [0.6, 0.0, 0.4]])
    assert Accuracy().sums(soft, predicted, tf.ones(2)).numpy().tolist() == [1, 2]


def test_an_image_without_any_class_is_rejected() -> None:
    rows = LabelRows.of([[0], []], exclusive=True)
    with pytest.raises(DataError, match="1.jpg has no class"):
        Classification().check(Examples.of_files(["0.jpg", "1.jpg"], rows, ("cat", "dog"), "data"))


def test_a_single_class_is_rejected() -> None:
    with pytest.raises(DataError, match="data/train has one class, 'cat'"):
        Classification().check(examples(np.zeros(3, np.int32), ("cat",)))


def test_the_losses_of_several_outputs_add_up_with_their_weights() -> None:
    task = Classification(outputs=(Output("main"), Output("aux", loss=Focal(), weight=0.3)))
    targets = task.targets(LABELS, 3)
    other = LOGITS[::-1].copy()
    expected = CrossEntropy()(targets, LOGITS, "softmax") + 0.3 * Focal()(targets, other, "softmax")
    np.testing.assert_allclose(task.losses(targets, [LOGITS, other], FACTORS), expected, rtol=1e-5)


def test_the_most_probable_prediction_comes_first() -> None:
    decoded = Classification().decode(np.array([0.2, 0.5, 0.3]), ("cat", "dog", "eel"), top=2)
    assert decoded == [{"label": "dog", "probability": 0.5}, {"label": "eel", "probability": 0.3}]
