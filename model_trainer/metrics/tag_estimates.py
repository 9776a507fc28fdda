"""The metrics of tags over all images, each with the bootstrap interval over the images.

Metrics of single images are over their known tags, and means leave out images of which no tag is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model_trainer.metrics.bootstrap import bootstrap_interval, num_resamples
from model_trainer.metrics.chunks import Progress
from model_trainer.metrics.estimate import Estimate
from model_trainer.metrics.multi_label import KS, Decisions, TagCounts
from model_trainer.metrics.tag_curves import TagCurves
from model_trainer.metrics.wilson import wilson_interval

__all__ = ["estimate_tags", "exact_match", "fraction", "mean_f1", "ratios", "tag_estimates"]

SUFFIXES = ("", "_at_thresholds")  # of metrics at 0.5, and at the threshold of each tag

Ratio = tuple[np.ndarray, np.ndarray]  # a numerator and a denominator per image; the metric is the ratio of sums


def ratios(counts: TagCounts) -> dict[str, Ratio]:
    """Returns the metrics that are a ratio of two sums over images, by name.

    They are, at 0.5 and `_at_thresholds`: `micro_f1`, `exact_match` (the fraction of the images of which every known
    tag is right) and `hamming_loss` (the mean over images of the fraction of wrong tags); `precision_at_k` and
    `recall_at_k`, as the metrics `PrecisionAtK` and `RecallAtK` define them; `coverage_error`,
    `label_ranking_average_precision` and `label_ranking_loss`; `cross_entropy`, the mean over known labels.

    Example:
        >>> from model_trainer.metrics.multi_label import count_tags
        >>> from model_trainer.metrics.tag_estimates import ratios
        >>> from model_trainer.metrics.tag_labels import TagLabels
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
        f1_denominators = decisions.predicted + counts.num_present
        mistakes = f1_denominators - 2 * decisions.hits
        per_image |= {
            f"micro_f1{suffix}": (2.0 * decisions.hits, f1_denominators),
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

    They are computed over the images in which the tag is known. Precision, recall and specificity are proportions of
    images and have Wilson's interval; F1 has none.
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


def mean_f1(hits: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Returns the mean over tags (the last axis) of their F1; tags that neither occur nor were predicted are left out.

    Args:
        hits: number of images in which each tag is predicted and true.
        denominators: number of images in which it is predicted, plus number of images in which it is true.
    """
    is_counted = denominators > 0
    f1 = 2.0 * hits / np.maximum(denominators, 1)
    num_counted = is_counted.sum(axis=-1)
    return np.where(num_counted > 0, f1.sum(axis=-1) / np.maximum(num_counted, 1), np.nan)


def estimate_tags(
    counts: TagCounts, curves: TagCurves, seed: int = 0, progress: Progress | None = None
) -> dict[str, Estimate]:
    """Computes the metrics over all images with their intervals, by name; `map`, the mean average precision, is first.

    All intervals come from the same resamples. The macro-averaged metrics of a resample follow from the influence of
    each image, see `rank_images`. Ranking the images of each resample would take hours with many images, and is no
    better with few: a true image drawn twice ranks above itself, so the average precision of rare tags rises, and the
    interval with it.

    Args:
        counts: at 0.5 and at the thresholds of the tags.
        curves: of the same predictions, with the influence on the macro F1 at these thresholds.

    Raises:
        ValueError: `curves` have no influence.

    Example:
        >>> from model_trainer.metrics.multi_label import count_tags
        >>> from model_trainer.metrics.tag_curves import rank_images
        >>> from model_trainer.metrics.tag_estimates import estimate_tags
        >>> from model_trainer.metrics.tag_labels import TagLabels
        >>> labels = TagLabels.of_dense(np.float32([[1, 0], [0, 1]] * 50))
        >>> probabilities = np.linspace(0.9, 0.1, 200, dtype=np.float32).reshape(100, 2)
        >>> thresholds = (np.full(2, 0.5), np.full(2, 0.3))
        >>> curves = rank_images(labels, probabilities, f1_at=thresholds)
        >>> str(estimate_tags(count_tags(labels, probabilities, thresholds), curves)["map"])
        '0.5147 (0.5097 to 0.5211)'
    """
    if curves.influence is None:
        raise ValueError("Expected curves with the influence of each image, but received none. Give rank_images f1_at.")
    image_ratios = ratios(counts)
    macro_metrics = {"map": _mean(curves.average_precision), "macro_auroc": _mean(curves.auroc)}
    for suffix, decisions in zip(SUFFIXES, counts.decisions, strict=True):
        f1_denominators = decisions.tag_predicted + counts.tag_present
        macro_metrics[f"macro_f1{suffix}"] = float(mean_f1(decisions.tag_hits, f1_denominators))
    values = macro_metrics | {name: _ratio(*each) for name, each in image_ratios.items()}
    macro_values = np.array(list(macro_metrics.values()))
    by_influence = curves.influence.T.astype(np.float32)
    columns = [column for each in image_ratios.values() for column in each]
    unique = list({id(column): column for column in columns}.values())
    position = {id(column): index for index, column in enumerate(unique)}
    numerator_columns, denominator_columns = (
        [position[id(each[side])] for each in image_ratios.values()] for side in (0, 1)
    )
    table = np.stack(unique, axis=1).astype(np.float32)
    num_images, done = len(counts.loss), 0

    def statistic(resample: np.ndarray) -> np.ndarray:
        nonlocal done
        resample_counts = resample.astype(np.float32)
        sums = resample_counts @ table
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled_ratios = sums[:, numerator_columns] / sums[:, denominator_columns]
        done += len(resample)
        if progress is not None:
            progress("confidence intervals", min(1.0, done / num_resamples(num_images)))
        # The influences of a metric sum to 0, so counts @ influence is (counts - 1) @ influence.
        resampled_macro = np.clip(macro_values + resample_counts @ by_influence, 0.0, 1.0)
        return np.concatenate([resampled_macro, resampled_ratios], axis=1)

    low, high = bootstrap_interval(statistic, num_images, seed=seed)
    return {
        name: Estimate(value, float(low[index]), float(high[index]))
        for index, (name, value) in enumerate(values.items())
    }


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    return float(fraction(numerators.sum(dtype=np.float64), denominators.sum(dtype=np.float64)))


def _mean(by_tag: np.ndarray) -> float:
    return float(np.nanmean(by_tag)) if np.isfinite(by_tag).any() else float("nan")
