from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from model_trainer.metrics.estimate import Estimate
from model_trainer.metrics.multi_label import TagCounts, count_tags
from model_trainer.metrics.tag_curves import rank_images
from model_trainer.metrics.tag_estimates import estimate_tags, mean_f1, ratios
from model_trainer.metrics.tag_labels import TagLabels


class TagTable(NamedTuple):
    """float32 `(num_images, num_tags)` each; NaN is an unknown label."""

    targets: np.ndarray
    probabilities: np.ndarray

    @property
    def labels(self) -> TagLabels:
        return TagLabels.of_dense(self.targets)

    @property
    def known(self) -> np.ndarray:
        return ~np.isnan(self.targets)

    def known_of(self, tag: int) -> tuple[np.ndarray, np.ndarray]:
        known = self.known[:, tag]
        return self.targets[known, tag], self.probabilities[known, tag]

    def known_of_images(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each image with a known tag: its known labels and their probabilities, as tables with one row."""
        rows = zip(self.targets, self.probabilities, self.known, strict=True)
        return [(targets[None, known], p[None, known]) for targets, p, known in rows if known.any()]


def tag_table(
    seed: int, num_images: int, num_tags: int, present: float = 0.3, unknown: float = 0.2, levels: int = 1 << 20
) -> TagTable:
    """Labels with a fraction of present and unknown ones, and probabilities with `levels` different values."""
    random = np.random.default_rng(seed)
    targets = (random.random((num_images, num_tags)) < present).astype(np.float32)
    signal = 0.3 * targets + 0.7 * random.random((num_images, num_tags))
    targets[random.random(targets.shape) < unknown] = np.nan
    return TagTable(targets, np.floor(signal * levels).astype(np.float32) / np.float32(levels))


# With tags that never or always occur, images and tags that are all unknown, one image, one tag, and equal scores.
TABLES = st.builds(
    tag_table,
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(1, 12),
    num_tags=st.integers(1, 7),
    present=st.sampled_from([0.3, 0.0, 0.1, 1.0]),
    unknown=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    levels=st.sampled_from([1 << 20, 1, 4]),
)
THRESHOLDS = np.float32([0.5, 0.3, 0.7, 0.5, 0.6, 0.4, 0.2])


def counted(table: TagTable) -> TagCounts:
    num_tags = table.targets.shape[1]
    return count_tags(table.labels, table.probabilities, (np.full(num_tags, 0.5), THRESHOLDS[:num_tags]))


def estimated(table: TagTable) -> dict[str, Estimate]:
    counts = counted(table)
    f1_at = tuple(decisions.thresholds for decisions in counts.decisions)
    return estimate_tags(counts, rank_images(table.labels, table.probabilities, f1_at=f1_at))


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def value(counts: TagCounts, name: str) -> float:
    numerators, denominators = ratios(counts)[name]
    return float(numerators.sum() / denominators.sum()) if denominators.any() else float("nan")


@settings(max_examples=25, deadline=None)
@given(TABLES)
def test_ranking_metrics_match_scikit_learn_on_the_known_tags_of_each_image(table: TagTable) -> None:
    counts = counted(table)
    images = table.known_of_images()
    # scikit-learn does not accept a single tag as a multi-label table. Its rank is always right.
    coverage = [sk.coverage_error(*each) if each[0].size > 1 else each[0].item() for each in images]
    precision = [sk.label_ranking_average_precision_score(*each) if each[0].size > 1 else 1.0 for each in images]
    loss = [sk.label_ranking_loss(*each) if each[0].size > 1 else 0.0 for each in images]
    np.testing.assert_allclose(value(counts, "coverage_error"), mean(coverage), rtol=1e-6)
    np.testing.assert_allclose(value(counts, "label_ranking_average_precision"), mean(precision), rtol=1e-6)
    np.testing.assert_allclose(value(counts, "label_ranking_loss"), mean(loss), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(TABLES, st.sampled_from([0, 1]))
def test_counts_of_decisions_match_scikit_learn(table: TagTable, index: int) -> None:
    counts, num_tags = counted(table), table.targets.shape[1]
    thresholds = np.full(num_tags, 0.5) if index == 0 else THRESHOLDS[:num_tags]
    suffix, decisions = ["", "_at_thresholds"][index], counts.decisions[index]
    true, predicted = table.targets == 1, table.probabilities >= thresholds
    known = table.known
    if known.any():
        expected = sk.f1_score(true[known], predicted[known], zero_division=np.nan)
        np.testing.assert_allclose(value(counts, f"micro_f1{suffix}"), expected, rtol=1e-6)
    images = [(t[k], p[k]) for t, p, k in zip(true, predicted, known, strict=True) if k.any()]
    hamming, exact = [sk.hamming_loss(*each) for each in images], [np.array_equal(*each) for each in images]
    np.testing.assert_allclose(value(counts, f"hamming_loss{suffix}"), mean(hamming), rtol=1e-6)
    np.testing.assert_allclose(value(counts, f"exact_match{suffix}"), mean(exact), rtol=1e-6)
    for tag in range(num_tags):
        _, false_positives, false_negatives, hits = (
            sk.confusion_matrix(true[known[:, tag], tag], predicted[known[:, tag], tag], labels=[False, True]).ravel()
            if known[:, tag].any()
            else (0, 0, 0, 0)
        )
        assert decisions.tag_hits[tag] == hits
        assert decisions.tag_predicted[tag] - hits == false_positives
        assert counts.tag_present[tag] - hits == false_negatives
    by_tag = [
        sk.f1_score(true[k, tag], predicted[k, tag], zero_division=0)
        for tag, k in enumerate(known.T)
        if (true | predicted)[k, tag].any()
    ]
    macro = mean_f1(decisions.tag_hits, decisions.tag_predicted + counts.tag_present)
    np.testing.assert_allclose(macro, mean(by_tag), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(TABLES, st.sampled_from([1, 3, 5]))
def test_precision_and_recall_at_k_count_the_k_most_probable_known_tags(table: TagTable, k: int) -> None:
    counts = counted(table)
    if k > table.targets.shape[1]:
        assert f"precision_at_{k}" not in ratios(counts)
        return
    hits = []
    for targets, p in zip(table.targets, table.probabilities, strict=True):
        most_probable = np.argsort(np.where(np.isnan(targets), 1.0, -p), kind="stable")[:k]
        hits.append(np.nansum(targets[most_probable]))
    num_true = np.nansum(table.targets, axis=1)
    is_known, has_any = table.known.any(axis=1), num_true > 0
    precision = mean([h / k for h in np.array(hits)[is_known]])
    recall = mean(list(np.array(hits)[has_any] / num_true[has_any]))
    np.testing.assert_allclose(value(counts, f"precision_at_{k}"), precision, rtol=1e-6)
    np.testing.assert_allclose(value(counts, f"recall_at_{k}"), recall, rtol=1e-6)


def test_ties_among_the_k_most_probable_tags_are_decided_by_their_order() -> None:
    table = TagTable(np.float32([[0, 1, 0, 1], [1, 0, 1, 0]]), np.full((2, 4), 0.5, np.float32))
    assert {k: hits.tolist() for k, hits in counted(table).ranking.hits_at.items()} == {
        1: [0, 1],
        3: [1, 2],
        5: [2, 2],
    }


@settings(max_examples=25, deadline=None)
@given(TABLES)
def test_the_loss_matches_log_loss_of_scikit_learn(table: TagTable) -> None:
    targets, p = table.targets[table.known], table.probabilities[table.known].astype(np.float64)
    if targets.size:
        expected = sk.log_loss(targets, np.clip(p, 1e-7, 1 - 1e-7), labels=[0, 1])
        np.testing.assert_allclose(value(counted(table), "cross_entropy"), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_of_a_soft_label_is_a_weighted_mean_of_both_hard_labels() -> None:
    labels = TagLabels.of_dense(np.float32([[0.25, 0.75]]))
    loss = count_tags(labels, np.float32([[0.6, 0.6]]), (np.full(2, 0.5),)).loss
    off, on = -np.log(0.4), -np.log(0.6)
    np.testing.assert_allclose(loss, 0.25 * on + 0.75 * off + 0.75 * on + 0.25 * off, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(TABLES)
def test_metrics_of_tags_match_scikit_learn_on_their_known_images(table: TagTable) -> None:
    num_tags = table.targets.shape[1]
    curves = rank_images(table.labels, table.probabilities, frozenset(range(num_tags)))
    for tag in range(num_tags):
        true, p = table.known_of(tag)
        if not true.any():
            assert np.isnan([curves.average_precision[tag], curves.auroc[tag]]).all()
            continue
        np.testing.assert_allclose(curves.average_precision[tag], sk.average_precision_score(true, p), rtol=1e-9)
        if true.all():
            assert np.isnan(curves.auroc[tag])
        else:
            np.testing.assert_allclose(curves.auroc[tag], sk.roc_auc_score(true, p), rtol=1e-9)
        precision, recall, _ = sk.precision_recall_curve(true, p)
        reference = set(zip(recall.round(9), precision.round(9), strict=True))
        curve = curves.curves[tag]
        assert set(zip(curve.recall.round(9), curve.precision.round(9), strict=True)) <= reference
        assert (curve.recall[0], curve.precision[0], curve.recall[-1]) == (0, 1, 1)


def test_a_curve_of_many_images_has_at_most_100_of_the_points_of_scikit_learn() -> None:
    table = tag_table(0, 2000, 1)
    true, p = table.known_of(0)
    curve = rank_images(table.labels, table.probabilities, frozenset({0})).curves[0]
    assert len(curve.recall) == 100
    precision, recall, _ = sk.precision_recall_curve(true, p)
    reference = set(zip(recall.round(9), precision.round(9), strict=True))
    assert set(zip(curve.recall.round(9), curve.precision.round(9), strict=True)) <= reference
    assert np.diff(curve.recall).max() < 0.012


def macro_metrics(table: TagTable, weights: np.ndarray) -> list[float]:
    """Mean average precision, AUROC, and macro F1 at 0.5 and at THRESHOLDS, with weighted images."""
    results: list[list[float]] = [[], [], [], []]
    for tag in range(table.targets.shape[1]):
        rows = table.known[:, tag] & (weights > 0)
        true, p, weight = table.targets[rows, tag], table.probabilities[rows, tag], weights[rows]
        if true.any():
            results[0].append(sk.average_precision_score(true, p, sample_weight=weight))
            if not true.all():
                results[1].append(sk.roc_auc_score(true, p, sample_weight=weight))
        for index, threshold in enumerate([0.5, THRESHOLDS[tag]]):
            if true.any() or (p >= threshold).any():
                results[2 + index].append(sk.f1_score(true, p >= threshold, sample_weight=weight, zero_division=0))
    return [mean(each) for each in results]


@pytest.mark.parametrize("levels", [1 << 20, 8], ids=["different scores", "equal scores"])
def test_the_influence_of_an_image_is_the_derivative_with_respect_to_its_weight(levels: int) -> None:
    table = tag_table(1, 40, 3, levels=levels)
    f1_at = (np.full(3, 0.5), THRESHOLDS[:3])
    influence = rank_images(table.labels, table.probabilities, f1_at=f1_at).influence
    for image in range(0, 40, 11):
        changed = []
        for step in (-1e-4, 1e-4):
            weights = np.ones(40)
            weights[image] += step
            changed.append(np.array(macro_metrics(table, weights)))
        slope = (changed[1] - changed[0]) / 2e-4
        np.testing.assert_allclose(influence[:, image], slope, rtol=1e-4, atol=1e-7)


def test_intervals_are_the_quantiles_of_the_metrics_of_resampled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tag_table(2, 12, 3, levels=8)

    def bootstrap(statistic, num_images: int, *, seed: int):
        random = np.random.default_rng(seed)
        resamples = random.multinomial(num_images, np.full(num_images, 1 / num_images), 6)
        results = statistic(resamples.astype(np.int32))
        for counts, values in zip(resamples, results, strict=True):
            drawn = np.repeat(np.arange(num_images), counts)
            again = counted(TagTable(table.targets[drawn], table.probabilities[drawn]))
            np.testing.assert_allclose(values[4:], [value(again, name) for name in ratios(again)], rtol=1e-4)
        return np.arange(results.shape[1]), np.arange(results.shape[1]) + 0.5

    monkeypatch.setattr("model_trainer.metrics.tag_estimates.bootstrap_interval", bootstrap)
    estimates = estimated(table)
    assert list(estimates)[:2] == ["map", "macro_auroc"]
    assert [(each.low, each.high) for each in estimates.values()] == [(i, i + 0.5) for i in range(len(estimates))]


def test_influences_predict_the_macro_averaged_metrics_of_a_resample() -> None:
    table = tag_table(3, 400, 3)
    influence = rank_images(table.labels, table.probabilities, f1_at=(np.full(3, 0.5), THRESHOLDS[:3])).influence
    resamples = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 12)
    expected = np.array([macro_metrics(table, counts) for counts in resamples])
    actual = np.array(macro_metrics(table, np.ones(400))) + resamples @ influence.T
    error = np.sqrt(np.mean((actual - expected) ** 2, axis=0))
    np.testing.assert_array_less(error, 0.15 * expected.std(axis=0))


def test_the_interval_of_a_metric_covers_95_percent_of_its_resamples() -> None:
    table = tag_table(4, 300, 4)
    estimates = estimated(table)
    curves = rank_images(table.labels, table.probabilities, f1_at=(np.full(4, 0.5), THRESHOLDS[:4]))
    deviations = np.sqrt((curves.influence**2).sum(axis=1))  # the standard deviation of a sum over multinomial counts
    for name, deviation in zip(("map", "macro_auroc", "macro_f1", "macro_f1_at_thresholds"), deviations, strict=True):
        estimate = estimates[name]
        assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
        assert estimate.low < estimate.value < estimate.high


@settings(max_examples=15, deadline=None)
@given(TABLES)
def test_degenerate_tables_have_estimates(table: TagTable) -> None:
    estimates = estimated(table)
    for name, estimate in estimates.items():
        assert np.isnan(estimate.value) or estimate.low is None or estimate.low <= estimate.high, name


def test_the_worst_tags_and_images_are_those_at_the_last_thresholds() -> None:
    targets = np.float32([[0, 0, 1, 1], [0, 0, 0, 0], [np.nan, 1, 0, 1]])
    probabilities = np.float32([[0.6, 0.8, 0.4, 0.1], [0.9, 0.1, 0.2, 0.3], [1.0, 0.9, 0.55, 0.2]])
    thresholds = (np.full(4, 0.9), np.full(4, 0.5))
    counts = count_tags(TagLabels.of_dense(targets), probabilities, thresholds)
    assert counts.wrong.which.tolist() == [1, 0, 2]
    assert counts.missed.which.tolist() == [3, -1, 3]
    assert counts.wrong_image.which.tolist() == [1, 0, 2, -1]
    assert counts.missed_image.which.tolist() == [-1, -1, 0, 0]
    np.testing.assert_allclose(counts.missed_image.probability, [np.nan, np.nan, 0.4, 0.1])


def test_a_memory_mapped_table_in_several_chunks_gives_the_same_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tag_table(4, 50, 7, levels=16)
    expected = counted(table)
    np.save(tmp_path / "p.npy", table.probabilities)
    monkeypatch.setattr("model_trainer.metrics.multi_label._CHUNK_BYTES", 300)
    fractions: list[float] = []
    counts = count_tags(
        table.labels,
        np.load(tmp_path / "p.npy", mmap_mode="r"),
        (np.full(7, 0.5), THRESHOLDS),
        progress=lambda _, fraction: fractions.append(fraction),
    )
    assert len(fractions) == 5
    assert fractions[-1] == 1
    for name in ("num_known", "num_present", "tag_known", "tag_present", "loss", "present_probability"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(expected, name))
    for name in ("wrong", "missed", "wrong_image", "missed_image"):
        np.testing.assert_array_equal(getattr(counts, name).which, getattr(expected, name).which)
        np.testing.assert_array_equal(getattr(counts, name).probability, getattr(expected, name).probability)
    for one, other in zip(counts.decisions, expected.decisions, strict=True):
        for name in ("hits", "predicted", "tag_hits", "tag_predicted", "is_hit"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(counts.ranking.loss, expected.ranking.loss)
