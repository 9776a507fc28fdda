from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from model_trainer import MultiLabel
from model_trainer.sources.label_rows import LabelRows
from model_trainer.tasks.multi_label_evaluation import MultiLabelEvaluation, evaluate_tags

RANDOM = np.random.default_rng(11)
TAGS = ("blue", "bold", "photo", "retro", "never")
TARGETS = (RANDOM.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(np.float32)
PROBABILITIES = np.clip(0.3 * TARGETS + 0.7 * RANDOM.random((60, 5)), 0, 1).astype(np.float32)
TARGETS[RANDOM.random(TARGETS.shape) < 0.1] = np.nan
TARGETS[7] = np.nan
THRESHOLDS = (0.4, 0.5, 0.3, 0.6, 0.9)
KNOWN = ~np.isnan(TARGETS)
PREDICTED = np.greater_equal(PROBABILITIES, np.float32(THRESHOLDS))


def evaluated(
    targets: np.ndarray = TARGETS, probabilities: np.ndarray = PROBABILITIES, tags: tuple[str, ...] = TAGS
) -> MultiLabelEvaluation:
    return evaluate_tags(targets, probabilities, tags, THRESHOLDS[: len(tags)])


EVALUATION = evaluated()


def test_precision_recall_and_f1_of_a_tag_match_scikit_learn_on_its_known_images() -> None:
    for tag in range(5):
        known = KNOWN[:, tag]
        expected = sk.precision_recall_fscore_support(
            TARGETS[known, tag], PREDICTED[known, tag], average="binary", zero_division=0.0
        )
        actual = (EVALUATION.precision[tag], EVALUATION.recall[tag], EVALUATION.f1[tag])
        assert actual == pytest.approx(expected[:3])
        assert EVALUATION.support[tag] == TARGETS[known, tag].sum()
        assert EVALUATION.unknown[tag] == (~known).sum()


def test_specificity_is_the_recall_of_the_absence_of_a_tag() -> None:
    columns = EVALUATION.to_dict()["per_class"]["specificity"]
    for tag in range(5):
        known = KNOWN[:, tag]
        expected = sk.recall_score(TARGETS[known, tag] == 0, ~PREDICTED[known, tag])
        assert columns["value"][tag] == pytest.approx(expected)
        assert columns["low"][tag] <= expected <= columns["high"][tag]


def test_the_main_metric_is_the_mean_average_precision_of_the_tags_that_occur() -> None:
    known = [(TARGETS[KNOWN[:, tag], tag], PROBABILITIES[KNOWN[:, tag], tag]) for tag in range(4)]
    expected = np.mean([sk.average_precision_score(*each) for each in known])
    name, estimate = next(iter(EVALUATION.estimates().items()))
    assert (name, estimate.value) == ("map", pytest.approx(expected))
    assert estimate.low < estimate.value < estimate.high
    assert next(iter(EVALUATION.metrics().items())) == ("map", str(estimate))


def test_metrics_at_one_half_and_at_the_thresholds_have_different_names() -> None:
    for suffix, predicted in (("", PROBABILITIES >= 0.5), ("_at_thresholds", PREDICTED)):
        expected = sk.f1_score(TARGETS[KNOWN] == 1, predicted[KNOWN])
        assert EVALUATION.estimates()[f"micro_f1{suffix}"].value == pytest.approx(expected)
        assert getattr(EVALUATION, f"micro_f1{suffix}") == pytest.approx(expected)
        right = ((predicted == TARGETS) | ~KNOWN).all(axis=1)[KNOWN.any(axis=1)]
        assert getattr(EVALUATION, f"exact_match{suffix}") == pytest.approx(right.mean())


def test_sparse_labels_give_the_same_metrics_as_a_dense_table() -> None:
    sparse = MultiLabel().evaluate(LabelRows.of_dense(TARGETS), PROBABILITIES, TAGS, THRESHOLDS)
    assert sparse.to_dict() == EVALUATION.to_dict()


def test_single_labels_count_as_one_tag_per_image() -> None:
    labels, probabilities = np.array([0, 1, 1], np.int32), np.float32([[0.9, 0.2], [0.6, 0.7], [0.3, 0.1]])
    one_hot = np.eye(2, dtype=np.float32)[labels]
    single = MultiLabel().evaluate(labels, probabilities, ("a", "b"))
    assert single.to_dict() == MultiLabel().evaluate(one_hot, probabilities, ("a", "b")).to_dict()


def test_a_memory_map_gives_the_same_metrics(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", PROBABILITIES)
    mapped = evaluated(probabilities=np.load(tmp_path / "p.npy", mmap_mode="r"))
    assert mapped.to_dict() == EVALUATION.to_dict()
    assert mapped.image_columns()["predicted_labels"] == EVALUATION.image_columns()["predicted_labels"]


def test_image_columns_match_scikit_learn() -> None:
    columns = EVALUATION.image_columns()
    names = np.array(TAGS)
    assert columns["true_labels"] == ["|".join(names[row == 1]) for row in TARGETS]
    assert columns["predicted_labels"] == ["|".join(names[row]) for row in PREDICTED]
    right = ((TARGETS == PREDICTED) | ~KNOWN).all(axis=1)
    np.testing.assert_array_equal(columns["exact_match"], right)
    assert np.isnan(columns["loss"][7])
    expected = sk.log_loss(TARGETS[0, KNOWN[0]], PROBABILITIES[0, KNOWN[0]].astype(float), labels=[0, 1])
    assert columns["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_scores_of_images_match_scikit_learn_and_are_nan_without_a_known_tag() -> None:
    scores = EVALUATION.scores()
    for row in range(60):
        if row == 7:
            assert np.isnan([scores["correct"][row], scores["f1"][row], scores["loss"][row]]).all()
            continue
        true, predicted = TARGETS[row, KNOWN[row]] == 1, PREDICTED[row, KNOWN[row]]
        assert scores["f1"][row] == pytest.approx(sk.f1_score(true, predicted, zero_division=1.0))
        assert scores["correct"][row] == (true == predicted).all()


def test_a_subset_has_the_metrics_of_its_images_alone() -> None:
    rows = np.arange(60) % 3 == 0
    alone = evaluated(TARGETS[rows], PROBABILITIES[rows])
    subset = EVALUATION.subset(rows)
    assert next(iter(subset)) == "map"
    for name, estimate in subset.items():
        assert estimate.value == pytest.approx(alone.estimates()[name].value), name
    exact = subset["exact_match_at_thresholds"]
    assert exact.low < exact.value < exact.high
    assert EVALUATION.subset(np.flatnonzero(rows)) == subset


def test_a_subset_of_a_memory_map_reads_its_images_only(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", PROBABILITIES)
    mapped = evaluated(probabilities=np.load(tmp_path / "p.npy", mmap_mode="r"))
    rows = np.array([40, 3, 17])
    assert mapped.subset(rows) == EVALUATION.subset(rows)


def test_an_empty_subset_is_undefined() -> None:
    assert all(np.isnan(estimate.value) for estimate in EVALUATION.subset(np.zeros(0, np.int64)).values())


def test_the_dictionary_is_strict_json_with_every_tag() -> None:
    content = json.loads(json.dumps(EVALUATION.to_dict(), allow_nan=False))
    assert content["main_metric"] == "map"
    assert content["classes"] == list(TAGS)
    for name in ("precision", "recall", "f1", "specificity", "auroc", "average_precision", "threshold"):
        assert len(content["per_class"][name]["value"]) == 5
    assert content["per_class"]["recall"]["value"][4] is None
    assert content["per_class"]["unknown"] == (~KNOWN).sum(axis=0).tolist()
    assert [curve["class"] for curve in content["curves"]] == ["blue", "bold", "photo", "retro"]
    assert content["at_k"]["recall"].keys() == {"1", "3", "5"}


def test_the_gallery_of_mistakes_shows_the_most_probable_wrong_tags() -> None:
    targets = np.float32([[0, 0], [1, 0], [0, 0], [np.nan, 0]])
    probabilities = np.float32([[0.6, 0.8], [0.9, 0.1], [0.2, 0.9], [1.0, 0.2]])
    galleries = {each.name: each for each in evaluated(targets, probabilities, ("blue", "bold")).galleries()}
    images = galleries["confident_mistakes"].images
    assert [(image.index, image.class_index) for image in images] == [(2, 1), (0, 1)]
    assert images[0].caption == "bold 0.90, which it is not"


def test_the_gallery_of_missed_tags_shows_the_least_probable_ones() -> None:
    targets = np.float32([[1, 1], [1, 1], [1, 0]])
    probabilities = np.float32([[0.3, 0.2], [0.1, 0.9], [0.9, 0.1]])
    galleries = {each.name: each for each in evaluated(targets, probabilities, ("blue", "bold")).galleries()}
    images = galleries["missed_tags"].images
    assert [(image.index, image.class_index) for image in images] == [(1, 0), (0, 1)]
    assert images[0].caption == "is blue, which got 0.10"


def test_the_gallery_of_uncertain_hits_shows_each_image_once_and_the_closest_first() -> None:
    targets = np.float32([[1, 1], [1, 0], [0, 1]])
    probabilities = np.float32([[0.9, 0.52], [0.45, 0.1], [0.9, 0.4]])
    galleries = {each.name: each for each in evaluated(targets, probabilities, ("blue", "bold")).galleries()}
    images = galleries["uncertain_hits"].images
    assert [(image.index, image.class_index) for image in images] == [(0, 1), (1, 0)]
    assert images[0].caption == "bold 0.52, counts from 0.50"


def test_the_gallery_by_tag_shows_the_worst_images_of_each_tag() -> None:
    targets = np.float32([[1, 0], [1, 0], [0, 0]])
    probabilities = np.float32([[0.3, 0.2], [0.1, 0.9], [0.9, 0.7]])
    galleries = {each.name: each for each in evaluated(targets, probabilities, ("blue", "bold")).galleries()}
    images = galleries["worst_by_class"].images
    assert [(image.index, image.class_index) for image in images] == [(2, 0), (1, 0), (1, 1)]


def test_without_mistakes_there_is_no_gallery_of_them() -> None:
    targets = np.float32([[1, 0], [0, 1]])
    galleries = evaluated(targets, targets, ("blue", "bold")).galleries()
    assert [gallery.name for gallery in galleries] == ["uncertain_hits"]


@pytest.mark.parametrize(
    "targets",
    [
        np.zeros((0, 2), np.float32),
        np.float32([[1, 0]]),
        np.float32([[np.nan, np.nan]]),
        np.zeros((3, 2), np.float32),
        np.float32([[1], [0]]),
    ],
    ids=["no image", "one image", "all unknown", "no tag occurs", "one tag"],
)
def test_degenerate_data_can_be_evaluated(targets: np.ndarray) -> None:
    evaluation = evaluated(targets, np.full(targets.shape, 0.5, np.float32), ("blue", "bold")[: targets.shape[1]])
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.metrics()["images"] == str(len(targets))
    assert evaluation.table()[1][0][0] == "blue"
    assert all(len(column) == len(targets) for column in evaluation.image_columns().values())
    evaluation.galleries()


def test_images_with_nan_as_probability_are_counted_and_make_the_loss_undefined() -> None:
    probabilities = PROBABILITIES.copy()
    probabilities[3, 1] = np.nan
    evaluation = evaluated(probabilities=probabilities)
    assert evaluation.metrics()["no prediction"].startswith("1 (probabilities are NaN")
    assert np.isnan(evaluation.loss)
    probabilities[3, 1] = 0.0
    assert evaluation.mean_average_precision == evaluated(probabilities=probabilities).mean_average_precision


def test_progress_reaches_the_end_of_each_step() -> None:
    last: dict[str, float] = {}
    evaluate_tags(TARGETS, PROBABILITIES, TAGS, THRESHOLDS, progress=last.__setitem__)
    assert last == {"metrics of the images": 1.0, "metrics of the tags": 1.0, "confidence intervals": 1.0}
