"""The metrics of tags over all images, each with the bootstrap interval over the images.

Metrics of single images are over their known tags, and means leave out images of which no tag is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from model_trainer.metrics.bootstrap import bootstrap_interval, num_resamples
from model_trainer.metrics.chunks import Progress
from model_trainer.metrics.estimate import Estimate
from model_trainer.metrics.multi_label import KS, Decisions, TagCounts
from model_trainer.metrics.tag_curves import TagCurves
from model_trainer.metrics.tag_labels import TagLabels
from model_trainer.metrics.wilson import wilson_interval

__all__ = ["estimate_tags", "exact_match", "fraction", "mean_f1", "ranks_every_resample", "ratios", "tag_estimates"]

SUFFIXES = ("", "_at_thresholds")  # of metrics at 0.5, and at the threshold of each tag

_MAX_RANKED = 1_000_000_000  # images of all tags in all resamples, about two seconds

Ratio = tuple[np.ndarray, np.ndarray]  # numerators and denominators, one of each image; the metric is sum over sum


def ratios(counts: TagCounts) -> dict[str, Ratio]:
    """Returns the metrics that are a sum over images divided by another one, by name.

    They are, at 0.5 and `_at_thresholds`: `micro_f1`, `exact_match` (the fraction of the images of which every known
    tag is right) and `hamming_loss` (the mean over images of the fraction of wrong tags); `precision_at_k` and
    `recall_at_k`, as the metrics `PrecisionAtK` and `RecallAtK` define them; `coverage_error`,
    `label_ranking_average_precision` and `label_ranking_loss`; `cross_entropy`, the mean over known labels.

    Example:
        >>> from model_trainer.metrics.multi_label import count_tags
        >>> from model_trainer.metrics.tag_estimates import ratios
        >>> from model_trainer.metrics.tag_labels import TagLabels
    from model_trainer.metrics.wilson import wilson_interval
        >>> labels = TagLabels.of_dense(np.float32([[1, 0, 1], [0, np.nan, 1]]))
        >>> probabilities = np.float32([[0.9, 0.7, 0.6], [0.2, 0.8, 0.1]])
        >>> numerators, denominators = ratios(count_tags(labels, probabilities, (np.full(3, 0.5),) * 2))["micro_f1"]
        >>> round(float(numerators.sum() / denominators.sum()), 3)
        0.667
    """
    num_tags = len(counts.tag_known)
    is_known, has_any = (counts.num_known > 0).astype(np.float32), (counts.num_present > 0).astype(np.float32)
    per_image: dict[str, Ratio] = {}
    for suffix, decisions in zip(SUFFIXES, counts.decisions, strict=True):
        both = decisions.predicted + counts.num_present
        mistakes = both - 2 * decisions.hits
        per_image |= {
            f"micro_f1{suffix}": (2.0 * decisions.hits, both),
            f"exact_match{suffix}": (exact_match(counts, decisions) * is_known, is_known),
            f"hamming_loss{suffix}": (mistakes / np.maximum(counts.num_known, 1), is_known),
        }
    for k in (k for k in KS if k <= num_tags):
        hits = counts.ranking.hits_at[k]
        per_image[f"precision_at_{k}"] = (hits / k, is_known)
        per_image[f"recall_at_{k}"] = (hits / np.maximum(counts.num_present, 1), has_any)
    return per_image | {
        "coverage_error": (counts.ranking.coverage, is_known),
        "label_ranking_average_precision": (counts.ranking.average_precision * is_known, is_known),
        "label_ranking_loss": (counts.ranking.loss, is_known),
        "cross_entropy": (counts.loss, counts.num_known),
    }


def exact_match(counts: TagCounts, decisions: Decisions) -> np.ndarray:
    """Returns bool `(num_images,)`: whether every known tag of an image is right; True if none is known."""
    return (decisions.hits == decisions.predicted) & (decisions.hits == counts.num_present)


def fraction(numerators: Any, denominators: Any, undefined: float = np.nan) -> np.ndarray:
    """Returns numerators / denominators; `undefined` where a denominator is 0."""
    denominators = np.asarray(denominators, np.float64)
    fractions = np.asarray(numerators, np.float64) / np.where(denominators == 0, 1.0, denominators)
    return np.where(denominators == 0, undefined, fractions)


def tag_estimates(counts: TagCounts, decisions: Decisions) -> dict[str, dict[str, np.ndarray]]:
    """Computes the metrics of each tag, `{name: {"value": ..., "low": ..., "high": ...}}`, `(num_tags,)` each.

    They are of the images in which the tag is known. Precision, recall and specificity are proportions of images and
    have Wilson's interval; F1 has none.
    """
    hits, predicted, present = decisions.tag_hits, decisions.tag_predicted, counts.tag_present
    absent = counts.tag_known - present
    columns = {}
    for name, successes, totals in (
        ("precision", hits, predicted),
        ("recall", hits, present),
        ("specificity", absent - (predicted - hits), absent),
    ):
        low, high = wilson_interval(successes, totals)
        columns[name] = {"value": fraction(successes, totals), "low": low, "high": high}
    return columns | {"f1": {"value": fraction(2 * hits, predicted + present)}}


def mean_f1(hits: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Returns the mean over tags (the last axis) of their F1; tags that neither occur nor were predicted are left out.

    Args:
        hits: number of images in which each tag is predicted and true.
        both: number of images in which it is predicted, plus number of images in which it is true.
    """
    is_counted = both > 0
    f1 = 2.0 * hits / np.maximum(both, 1)
    num_counted = is_counted.sum(axis=-1)
    return np.where(num_counted > 0, f1.sum(axis=-1) / np.maximum(num_counted, 1), np.nan)


def ranks_every_resample(num_images: int, num_tags: int) -> bool:
    """Whether the macro-averaged metrics are computed anew in every resample, rather than from their influence."""
    return num_images * num_tags * num_resamples(num_images) <= _MAX_RANKED


def estimate_tags(
    labels: TagLabels,
    probabilities: np.ndarray,
    counts: TagCounts,
    curves: TagCurves,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Estimate]:
    """Computes the metrics over all images with their intervals, by name; `map`, the mean average precision, is first.

    With many images the intervals of the macro-averaged metrics come from the influence of each image, see
    `rank_images`; with few (`ranks_every_resample`) each metric is computed in every resample.

    Args:
        counts: of thresholds of 0.5 and of those of the tags.
        curves: of the same predictions; with `influence` unless `ranks_every_resample`.
    """
    of_images = ratios(counts)
    of_tags = {"map": _mean(curves.average_precision)}
    for suffix, decisions in zip(SUFFIXES, counts.decisions, strict=True):
        both = decisions.tag_predicted + counts.tag_present
        of_tags[f"macro_f1{suffix}"] = float(mean_f1(decisions.tag_hits, both))
    values = of_tags | {name: _ratio(*each) for name, each in of_images.items()}
    if curves.influence is None:
        macro = _every_resample(labels, probabilities, tuple(each.thresholds for each in counts.decisions))
    else:
        macro = _by_influence(np.array(list(of_tags.values())), curves.influence.astype(np.float32))
    columns = [column for each in of_images.values() for column in each]
    unique = list({id(column): column for column in columns}.values())
    position = {id(column): index for index, column in enumerate(unique)}
    tops, bottoms = ([position[id(each[side])] for each in of_images.values()] for side in (0, 1))
    table = np.stack(unique, axis=1).astype(np.float32)
    done = 0

    def statistic(resample: np.ndarray) -> np.ndarray:
        nonlocal done
        resample_counts = resample.astype(np.float32)
        sums = resample_counts @ table
        with np.errstate(invalid="ignore", divide="ignore"):
            of_ratios = sums[:, tops] / sums[:, bottoms]
        done += len(resample)
        if progress is not None:
            progress("confidence intervals", min(1.0, done / num_resamples(len(labels))))
        return np.concatenate([macro(resample_counts), of_ratios], axis=1)

    low, high = bootstrap_interval(statistic, len(labels), seed=seed)
    estimates = {
        name: Estimate(value, float(low[index]), float(high[index]))
        for index, (name, value) in enumerate(values.items())
    }
    return estimates | {"macro_auroc": Estimate(_mean(curves.auroc))}


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    return float(fraction(numerators.sum(dtype=np.float64), denominators.sum(dtype=np.float64)))


def _mean(by_tag: np.ndarray) -> float:
    return float(np.nanmean(by_tag)) if np.isfinite(by_tag).any() else float("nan")


def _by_influence(values: np.ndarray, influence: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    # The influences of a metric sum to 0, so counts @ influence is (counts - 1) @ influence.
    return lambda resample: np.clip(values + resample @ influence.T, 0.0, 1.0)


def _every_resample(
    labels: TagLabels, probabilities: np.ndarray, thresholds: tuple[np.ndarray, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function of float32 `(b, num_images)` that computes mean average precision and macro F1."""
    entries = labels.entries()
    present, unknown = labels.rows_by_tag(entries.present), labels.rows_by_tag(entries.unknown)
    table = np.nan_to_num(np.array(probabilities, np.float32))
    table[entries.unknown.rows, entries.unknown.tags] = -1.0
    is_present = np.zeros(table.shape, np.float32)
    is_present[entries.present.rows, entries.present.tags] = 1.0
    groups = [
        _groups(table[:, tag], present[tag], len(table) - len(unknown[tag]))
        for tag in range(labels.num_tags)
        if len(present[tag])
    ]
    decided = []
    for each in thresholds:
        is_predicted = (table >= each).astype(np.float32)
        decided.append((is_predicted * is_present, is_predicted + is_present))

    def compute(resample: np.ndarray) -> np.ndarray:
        by_image = np.ascontiguousarray(resample.T)
        precisions = np.full((max(len(groups), 1), len(resample)), np.nan)
        for index, (all_images, true_images) in enumerate(groups):
            num_all, num_true = (np.cumsum(group @ by_image, axis=0) for group in (all_images, true_images))
            gained = np.diff(num_true, axis=0, prepend=0.0)
            total = num_true[-1]
            precision = (gained * num_true / np.maximum(num_all, 1.0)).sum(axis=0)
            precisions[index] = np.where(total > 0, precision / np.maximum(total, 1.0), np.nan)
        occurs = np.isfinite(precisions)
        num_tags = occurs.sum(axis=0)
        mean = np.where(num_tags > 0, np.where(occurs, precisions, 0.0).sum(axis=0) / np.maximum(num_tags, 1), np.nan)
        return np.stack([mean, *(mean_f1(resample @ hits, resample @ both) for hits, both in decided)], axis=1)

    return compute


def _groups(scores: np.ndarray, present: np.ndarray, num_known: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Returns for each different probability of a true image, highest first, which images come with it.

    These are all images, and the true ones, from above the next lower group down to the probability itself: two sparse
    tables `(groups, num_images)` of ones.
    """
    order = np.argsort(-scores, kind="stable")[:num_known]  # unknown ones are last
    true_order = present[np.argsort(-scores[present], kind="stable")]
    thresholds = -np.unique(-scores[present])
    tables = []
    for images in (order, true_order):
        ends = np.searchsorted(-scores[images], -thresholds, "right")
        starts = np.concatenate([[0], ends])
        ones = np.ones(starts[-1], np.float32)
        tables.append(sparse.csr_array((ones, images[: starts[-1]], starts), shape=(len(thresholds), len(scores))))
    return tables[0], tables[1]
