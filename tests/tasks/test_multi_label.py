from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Asymmetric, Call, CrossEntropy, Focal, Live, MultiLabel
from model_trainer.config import Config
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows
from model_trainer.tasks.task import Factors, Task
from model_trainer.tasks.thresholds import best_thresholds

RANDOM = np.random.default_rng(5)
LOGITS = RANDOM.normal(0, 2, (6, 3)).astype(np.float32)
TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]], np.float32)
P = 1 / (1 + np.exp(-LOGITS))
TERMS = -(TARGETS * np.log(P) + (1 - TARGETS) * np.log(1 - P))
FACTORS = Factors.ones(3)
TAGS = ("blue", "bold", "photo")


def examples(targets: np.ndarray = TARGETS) -> Examples:
    names = [f"{number}.jpg" for number in range(len(targets))]
    return Examples.of_files(names, LabelRows.of_dense(targets), TAGS, origin="tags.csv")


def losses(task: MultiLabel, targets: np.ndarray = TARGETS, factors: Factors = FACTORS) -> np.ndarray:
    return task.losses(tf.constant(targets), [tf.constant(LOGITS)], factors).numpy()


def test_the_loss_matches_binary_cross_entropy_of_keras() -> None:
    expected = keras.losses.BinaryCrossentropy(reduction=None)(TARGETS, P)
    np.testing.assert_allclose(losses(MultiLabel()), expected, rtol=1e-5)


def test_focal_loss_matches_keras() -> None:
    expected = keras.losses.BinaryFocalCrossentropy(gamma=2.0, reduction=None)(TARGETS, P)
    np.testing.assert_allclose(losses(MultiLabel(loss=Focal())), expected, rtol=1e-5)


def test_asymmetric_loss_follows_the_formula_of_the_paper() -> None:
    shifted = np.maximum(P - 0.05, 0)
    expected = -(TARGETS * (1 - P) * np.log(P) + (1 - TARGETS) * shifted**4 * np.log(1 - shifted))
    task = MultiLabel(loss=Asymmetric(gamma_positive=1, gamma_negative=4, margin=0.05))
    np.testing.assert_allclose(losses(task), expected.mean(axis=1), rtol=1e-4, atol=1e-7)


def test_asymmetric_loss_without_focusing_and_margin_is_cross_entropy() -> None:
    task = MultiLabel(loss=Asymmetric(gamma_positive=0, gamma_negative=0, margin=0))
    np.testing.assert_allclose(losses(task), TERMS.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(gamma=0), Focal(), Asymmetric(), Asymmetric(margin=0)])
def test_gradients_are_finite_for_extreme_logits(loss: object) -> None:
    logits = tf.constant([[-200.0, 200.0, 0.0], [200.0, -200.0, 0.0]])
    targets = tf.constant([[1.0, 1.0, np.nan], [0.0, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = MultiLabel(loss=loss).losses(targets, [logits], FACTORS)
    assert np.isfinite(tape.gradient(value, logits)).all()
    assert np.isfinite(value).all()


def test_unknown_tags_are_masked_in_the_loss_and_in_its_gradient() -> None:
    targets = np.where(RANDOM.random(TARGETS.shape) < 0.4, np.nan, TARGETS).astype(np.float32)
    targets[2] = np.nan
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = MultiLabel().losses(tf.constant(targets), [logits], FACTORS)
    expected = [TERMS[row][~np.isnan(targets[row])].mean() if row != 2 else 0 for row in range(6)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(tape.gradient(value, logits).numpy() == 0, np.isnan(targets))


def test_an_image_whose_tags_are_all_unknown_has_weight_0() -> None:
    targets = np.array([[np.nan, np.nan, np.nan], [np.nan, 0, 1]], np.float32)
    weights = MultiLabel().example_weights(tf.constant(targets), tf.constant([2.0, 2.0]), FACTORS)
    assert weights.numpy().tolist() == [0, 2]


def test_positive_weights_match_weighted_cross_entropy_of_tensorflow() -> None:
    factors = MultiLabel(positive_weights={"bold": 3.0}).factors(examples())
    expected = tf.nn.weighted_cross_entropy_with_logits(TARGETS, LOGITS, tf.constant([1.0, 3.0, 1.0]))
    np.testing.assert_allclose(losses(MultiLabel(), factors=factors), tf.reduce_mean(expected, 1), rtol=1e-5)


def test_balanced_positive_weights_are_absent_over_present_among_known_tags() -> None:
    targets = TARGETS.copy()
    targets[0, 2] = np.nan
    factors = MultiLabel(positive_weights="balanced").factors(examples(targets))
    np.testing.assert_allclose(factors.positive_weights, [2 / 4, 3 / 3, 4 / 1])


def test_balanced_class_weights_give_each_tag_the_same_total_weight() -> None:
    factors = MultiLabel(class_weights="balanced").factors(examples())
    np.testing.assert_allclose(factors.class_weights * TARGETS.sum(axis=0), np.full(3, 8 / 3), rtol=1e-6)


def test_a_weight_for_an_unknown_tag_is_rejected() -> None:
    with pytest.raises(ConfigError, match="task.positive_weights.blod.*Did you mean 'bold'"):
        MultiLabel(positive_weights={"blod": 2.0}).check(examples())


def test_a_keras_loss_is_accepted_without_weights_and_without_unknown_tags_only() -> None:
    task = MultiLabel(loss=Live(value=keras.losses.BinaryCrossentropy()))
    np.testing.assert_allclose(losses(task), TERMS.mean(axis=1), rtol=1e-4)
    with pytest.raises(ConfigError, match="should be a built-in loss .* with class_weights"):
        MultiLabel(loss=Call("my.loss"), class_weights="balanced").check(examples())
    targets = TARGETS.copy()
    targets[0, 0] = np.nan
    with pytest.raises(ConfigError, match="cannot mask the unknown tags"):
        task.check(examples(targets))


def test_single_labels_become_one_tag_per_image() -> None:
    targets = MultiLabel().targets(tf.constant([2, 0]), 3)
    assert targets.numpy().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_decoding_returns_the_tags_that_reach_their_thresholds() -> None:
    probabilities = np.array([0.3, 0.6, 0.55], np.float32)
    assert [tag["label"] for tag in MultiLabel().decode(probabilities, TAGS)] == ["bold", "photo"]
    fitted = MultiLabel().decode(probabilities, TAGS, thresholds=(0.25, 0.7, 0.7))
    assert fitted == [{"label": "blue", "probability": pytest.approx(0.3)}]
    assert MultiLabel(thresholds=0.9).decode(probabilities, TAGS) == []
    assert [tag["label"] for tag in MultiLabel().decode(probabilities, TAGS, top=3)] == ["bold", "photo", "blue"]


def test_best_thresholds_maximize_f1() -> None:
    from sklearn.metrics import f1_score

    targets = (RANDOM.random((200, 4)) < [0.5, 0.1, 0.9, 0.3]).astype(np.float32)
    probabilities = (targets * 0.25 + RANDOM.random((200, 4)) * 0.75).astype(np.float32)
    fitted = best_thresholds(targets, probabilities, np.ones(200, np.float32))
    for index, threshold in enumerate(fitted):
        grid = [f1_score(targets[:, index], probabilities[:, index] >= other) for other in np.linspace(0, 1, 201)]
        assert f1_score(targets[:, index], probabilities[:, index] >= threshold) >= max(grid) - 1e-12


def test_a_tag_that_never_or_always_occurs_gets_a_threshold_of_one_half() -> None:
    targets = np.array([[0, 1, np.nan], [0, 1, 1]], np.float32)
    assert best_thresholds(targets, np.full((2, 3), 0.2, np.float32), np.ones(2, np.float32)) == (0.5, 0.5, 0.5)


def test_a_multi_label_task_can_be_written_to_json_and_read_back() -> None:
    class Holder(Config):
        task: Task

    declared = Holder(task=MultiLabel(loss=Asymmetric(margin=0.1), positive_weights="balanced", thresholds=0.4))
    assert Holder.from_dict(declared.to_dict()) == declared


def test_data_without_any_tag_is_rejected() -> None:
    with pytest.raises(DataError, match="no tags"):
        MultiLabel().check(Examples.of_files(["a.jpg"], LabelRows.of([[]]), (), origin="tags.csv"))
