from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from model_trainer.sources.label_rows import LabelRows
from model_trainer.tasks.classification import Classification
from model_trainer.tasks.classification_evaluation import ClassificationEvaluation, evaluate_classes

CLASSES = ("cat", "dog", "eel")
# Two cats, one of them predicted as a dog; one dog; no eel.
LABELS = np.array([0, 0, 1])
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])

MANY_CLASSES = tuple("abcdefgh")


def many(num_images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    labels, table = random.integers(0, 8, num_images), random.dirichlet(np.ones(8), num_images)
    table[np.arange(num_images), labels] += 0.2
    return labels, (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def evaluation() -> ClassificationEvaluation:
    return evaluate_classes(*many(), MANY_CLASSES)


def test_the_metrics_equal_those_computed_by_hand() -> None:
    metrics = evaluate_classes(LABELS, PROBABILITIES, CLASSES, num_bad=1)
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.sensitivity == pytest.approx((1 / 2 + 1) / 2)  # the class without images is left out
    assert metrics.loss == pytest.approx(-(np.log(0.7) + np.log(0.3) + np.log(0.8)) / 3)
    assert metrics.precision.tolist() == [1.0, 0.5, 0.0]
    assert metrics.recall.tolist() == [0.5, 1.0, 0.0]
    assert metrics.support.tolist() == [2, 1, 0]
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (metrics.num_images, metrics.num_bad, metrics.top_5_accuracy) == (3, 1, None)


def test_every_metric_matches_scikit_learn(evaluation: ClassificationEvaluation) -> None:
    labels, table = many()
    predicted, wide = table.argmax(axis=1), table.astype(np.float64)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "top_5_accuracy": sk.top_k_accuracy_score(labels, table, k=5),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "weighted_precision": sk.precision_score(labels, predicted, average="weighted"),
        "log_loss": sk.log_loss(labels, table),
        "macro_auroc": sk.roc_auc_score(labels, wide / wide.sum(axis=1, keepdims=True), multi_class="ovr"),
        "macro_average_precision": sk.average_precision_score(np.eye(8)[labels], table),
        "cohen_kappa": sk.cohen_kappa_score(labels, predicted),
        "matthews": sk.matthews_corrcoef(labels, predicted),
        "brier": sk.brier_score_loss(labels, table),
    }
    estimates = evaluation.estimates()
    for name, value in expected.items():
        assert estimates[name].value == pytest.approx(value, abs=1e-6), name


def test_accuracy_is_the_main_metric(evaluation: ClassificationEvaluation) -> None:
    assert next(iter(evaluation.estimates())) == next(iter(evaluation.metrics())) == "accuracy"
    assert evaluation.to_dict()["main_metric"] == "accuracy"


def test_the_main_metrics_are_summarized_with_intervals() -> None:
    labels, table = many()
    metrics = evaluate_classes(labels, table, MANY_CLASSES, num_bad=2).metrics()
    assert list(metrics) == [
        "accuracy", "balanced_accuracy", "top_5_accuracy", "macro_f1", "log_loss", "macro_auroc", "ece", "images",
        "unreadable",
    ]  # fmt: skip
    accuracy = (table.argmax(axis=1) == labels).mean()
    assert metrics["accuracy"].startswith(f"{accuracy:.4f} (0.")
    assert (metrics["images"], metrics["unreadable"]) == ("200", "2")


def test_table_matrix_and_metrics_agree(evaluation: ClassificationEvaluation) -> None:
    confusion = evaluation.confusion
    assert np.trace(confusion) == round(evaluation.accuracy * 200)
    assert np.array_equal(confusion.sum(axis=1), evaluation.support)
    assert np.diag(confusion) / confusion.sum(axis=0) == pytest.approx(evaluation.precision)
    largest = evaluation.to_dict()["confusion"]["largest"][0]
    true, predicted = (MANY_CLASSES.index(largest[key]) for key in ("true", "predicted"))
    assert largest["images"] == confusion[true, predicted] == (confusion - np.diag(np.diag(confusion))).max()
    assert largest["fraction"] == pytest.approx(confusion[true, predicted] / confusion[true].sum())


def test_the_table_names_the_class_that_each_class_is_most_often_confused_with() -> None:
    _, rows = evaluate_classes(LABELS, PROBABILITIES, CLASSES).table()
    assert rows[0] == ["cat", "2", "1.000", "0.500", "0.667", "dog (1)"]
    assert [row[-1] for row in rows[1:]] == ["", ""]


def test_undefined_metrics_are_null_in_the_json() -> None:
    values = evaluate_classes(LABELS, PROBABILITIES, CLASSES).to_dict()["per_class"]
    assert values["images"] == [2, 1, 0]
    for name in ("recall", "auroc", "average_precision"):
        assert values[name]["value"][2] is None, name
    assert values["recall"]["low"][2] is None
    assert values["specificity"]["value"] == [1.0, 0.5, 1.0]


def test_the_json_has_the_documented_keys(evaluation: ClassificationEvaluation) -> None:
    document = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert set(document) == {
        "main_metric", "metrics", "classes", "baselines", "per_class", "confusion", "calibration", "selective"
    }  # fmt: skip
    assert set(document["metrics"]["accuracy"]) == {"value", "low", "high"}
    majority = int(np.bincount(many()[0]).argmax())
    assert document["baselines"] == {
        "chance": 1 / 8, "majority": np.mean(many()[0] == majority), "majority_class": MANY_CLASSES[majority]
    }  # fmt: skip
    assert set(document["per_class"]) == {
        "images", "precision", "recall", "f1", "specificity", "auroc", "average_precision"
    }  # fmt: skip
    assert len(document["calibration"]["before"]["bins"]) == 15
    assert document["selective"][0] == {"threshold": 0.0, "coverage": 1.0, "accuracy": evaluation.accuracy}


def test_the_confusion_matrix_of_more_than_50_classes_is_left_out() -> None:
    labels, table = np.arange(51), np.eye(51, dtype=np.float32)[::-1]
    confusion = evaluate_classes(labels, table, tuple(map(str, range(51)))).to_dict()["confusion"]
    assert confusion["matrix"] is None
    assert len(confusion["largest"]) == 50  # the middle one is right


def test_image_columns_hold_labels_probabilities_and_correctness() -> None:
    columns = evaluate_classes(LABELS, PROBABILITIES, CLASSES).image_columns()
    assert list(columns) == [
        "true_label", "predicted_label", "probability", "correct", "true_label_probability", "loss"
    ]  # fmt: skip
    assert columns["true_label"] == ["cat", "cat", "dog"]
    assert columns["predicted_label"] == ["cat", "dog", "dog"]
    assert np.asarray(columns["probability"]).tolist() == [0.7, 0.6, 0.8]
    assert np.asarray(columns["true_label_probability"]).tolist() == [0.7, 0.3, 0.8]
    assert np.asarray(columns["correct"]).tolist() == [True, False, True]


def test_the_metrics_of_a_subset_are_those_of_its_images_alone(evaluation: ClassificationEvaluation) -> None:
    labels, table = many()
    rows = np.arange(0, 200, 3)
    alone = evaluate_classes(labels[rows], table[rows], MANY_CLASSES).estimates()
    for chosen in (rows, np.isin(np.arange(200), rows)):
        for name, estimate in evaluation.subset(chosen).items():
            assert estimate.value == pytest.approx(alone[name].value), name
    assert evaluation.subset(rows)["accuracy"].low is not None


def test_the_metrics_of_no_images_are_undefined(evaluation: ClassificationEvaluation) -> None:
    nothing = evaluate_classes(np.zeros(0, np.int32), np.zeros((0, 3), np.float32), CLASSES)
    assert math.isnan(nothing.accuracy)
    assert all(math.isnan(estimate.value) for estimate in nothing.estimates().values())
    json.dumps(nothing.to_dict(), allow_nan=False)
    assert all(math.isnan(estimate.value) for estimate in evaluation.subset(np.zeros(0, int)).values())


@pytest.mark.parametrize(
    ("labels", "table"),
    [
        pytest.param([1], [[0.2, 0.5, 0.3]], id="one image"),
        pytest.param([0, 1, 2], [[1 / 3] * 3] * 3, id="all scores equal"),
        pytest.param([0, 1, 2], [[0.0, 1.0, 0.0]] * 3, id="only one class predicted"),
        pytest.param([0, 0, 0], [[1.0, 0.0, 0.0]] * 3, id="only one class occurs, and always with 1"),
        pytest.param([0, 1], [[0.0, 0.0, 1.0]] * 2, id="the true class always with 0"),
    ],
)
def test_degenerate_predictions_can_be_evaluated(labels: list[int], table: list[list[float]]) -> None:
    evaluation = evaluate_classes(np.array(labels), np.array(table, np.float32), CLASSES)
    correct = np.argmax(table, axis=1) == labels
    assert evaluation.accuracy == correct.mean()
    assert math.isfinite(evaluation.loss)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.galleries()


def test_a_model_that_predicts_nan_can_be_evaluated() -> None:
    evaluation = evaluate_classes(LABELS, np.full((3, 3), np.nan, np.float32), CLASSES)
    assert evaluation.accuracy == 0.0
    assert math.isnan(evaluation.loss)
    assert "diverged" in evaluation.metrics()["no prediction"]
    assert evaluation.image_columns()["predicted_label"] == ["", "", ""]
    assert evaluation.confusion.sum() == 0
    assert evaluation.to_dict()["metrics"]["log_loss"] == {"value": None, "low": None, "high": None}
    assert evaluation.galleries() == []
    json.dumps(evaluation.to_dict(), allow_nan=False)


def gallery(evaluation: ClassificationEvaluation, name: str) -> tuple[Any, ...]:
    return next(gallery.images for gallery in evaluation.galleries() if gallery.name == name)


def test_the_most_confident_mistakes_come_first(evaluation: ClassificationEvaluation) -> None:
    labels, table = many()
    wrong = table.argmax(axis=1) != labels
    expected = np.flatnonzero(wrong)[np.argsort(-table.max(axis=1)[wrong], kind="stable")][:24]
    images = gallery(evaluation, "confident_mistakes")
    assert [image.index for image in images] == expected.tolist()
    first = images[0]
    assert first.class_index == table[first.index].argmax()
    assert f", is {MANY_CLASSES[labels[first.index]]} " in first.caption


def test_the_least_certain_hits_come_first(evaluation: ClassificationEvaluation) -> None:
    labels, table = many()
    right = table.argmax(axis=1) == labels
    expected = np.flatnonzero(right)[np.argsort(table.max(axis=1)[right], kind="stable")][:24]
    assert [image.index for image in gallery(evaluation, "uncertain_hits")] == expected.tolist()


def test_each_class_has_its_worst_images_and_typical_hits(evaluation: ClassificationEvaluation) -> None:
    labels, table = many()
    own_probability = table[np.arange(200), labels]
    mistakes = [np.sum((labels == index) & (table.argmax(axis=1) != index)) for index in range(8)]
    worst = gallery(evaluation, "worst_by_class")
    assert [labels[image.index] for image in worst[::2]] == np.argsort(-np.array(mistakes), kind="stable").tolist()
    for image in worst[::2]:
        own = labels == labels[image.index]
        assert own_probability[image.index] == own_probability[own].min()
    for image in gallery(evaluation, "typical_by_class"):
        own = (labels == labels[image.index]) & (table.argmax(axis=1) == labels)
        assert own_probability[own].min() < own_probability[image.index] < own_probability[own].max()


def test_galleries_of_many_classes_are_bounded() -> None:
    random = np.random.default_rng(0)
    table, labels = random.dirichlet(np.ones(60), 3000).astype(np.float32), np.arange(3000) % 60
    table[np.arange(0, 3000, 7), labels[::7]] = 1.0
    for each in evaluate_classes(labels, table, tuple(map(str, range(60)))).galleries():
        assert len(each.images) <= (40 if each.name.endswith("by_class") else 24)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(LABELS.astype(np.int32), id="class indices"),
        pytest.param(LabelRows.of([[0, 1], [0], [1, 2]], [[0.6, 0.4], [1.0], [0.9, 0.1]], exclusive=True), id="soft"),
        pytest.param(np.eye(3, dtype=np.float32)[LABELS], id="dense"),
    ],
)
def test_a_task_evaluates_labels_of_every_kind(labels: Any) -> None:
    evaluation = Classification().evaluate(labels, PROBABILITIES, CLASSES)
    assert evaluation.labels.tolist() == LABELS.tolist()
    assert evaluation.accuracy == pytest.approx(2 / 3)


def test_a_sigmoid_head_has_no_temperature() -> None:
    labels, table = many()
    evaluation = Classification(activation="sigmoid").evaluate(labels, table, MANY_CLASSES)
    assert evaluation.calibration.temperature is None
    assert evaluation.calibration.after is None


def test_predictions_in_a_file_are_evaluated_like_those_in_memory(tmp_path: Path) -> None:
    labels, table = many()
    np.save(tmp_path / "probabilities.npy", table)
    steps: dict[str, float] = {}
    mapped = evaluate_classes(
        labels, np.load(tmp_path / "probabilities.npy", mmap_mode="r"), MANY_CLASSES, progress=steps.__setitem__
    )
    assert mapped.to_dict() == evaluate_classes(labels, table, MANY_CLASSES).to_dict()
    assert len(steps) >= 4
    assert steps["comparing predictions with labels"] == steps["ranking images by class"] == 1.0


def test_an_evaluation_prints_in_one_line(evaluation: ClassificationEvaluation) -> None:
    assert repr(evaluation).startswith("ClassificationEvaluation(num_images=200, num_bad=0, ")
    assert "array" not in repr(evaluation)


def test_metrics_do_not_import_tensorflow() -> None:
    program = (
        "import model_trainer.tasks.classification_evaluation as c, numpy as np, sys\n"
        "c.evaluate_classes(np.array([0, 1]), np.eye(2), ('a', 'b')).to_dict()\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "model_trainer.metrics.calibration" in loaded
    assert not set(loaded) & {"tensorflow", "keras", "sklearn"}
