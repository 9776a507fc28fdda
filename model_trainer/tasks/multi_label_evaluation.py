"""Metrics of a multi-label classifier on labeled images; unknown labels are masked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from model_trainer.metrics.chunks import Progress, row_chunks
from model_trainer.metrics.estimate import Estimate, finite_or_none
from model_trainer.metrics.missed_together import missed_together
from model_trainer.metrics.multi_label import KS, Decisions, TagCounts, count_tags
from model_trainer.metrics.tag_curves import TagCurves, rank_images
from model_trainer.metrics.tag_estimates import (
    estimate_tags,
    exact_match,
    fraction,
    tag_estimates,
)
from model_trainer.metrics.tag_labels import TagLabels
from model_trainer.metrics.tag_subset import estimate_subset
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import Labels, rows_of
from model_trainer.tasks.evaluation import Evaluation, Gallery
from model_trainer.tasks.multi_label_galleries import galleries_of_tags

__all__ = ["MultiLabelEvaluation", "evaluate_tags"]

# The headline, the main metric first: what a terminal shows. `estimates()` has all metrics.
_SHOWN = (
    "map", "cross_entropy", "micro_f1", "macro_f1", "exact_match",
    "micro_f1_at_thresholds", "macro_f1_at_thresholds", "exact_match_at_thresholds",
)  # fmt: skip
_MAX_CURVES = 200


@dataclass(frozen=True, eq=False)
class MultiLabelEvaluation(Evaluation):
    """The metrics of a multi-label classifier on some data.

    Unknown labels are masked: metrics of an image are over its known tags, those of a tag over the images in which it
    is known, and images without a known tag are left out. A probability that is NaN counts as 0; losses are then NaN.

    Attributes:
        num_images, num_bad: numbers of images that could and could not be read.
        classes: names of the tags.
        thresholds: minimum probability of each tag.
        labels: the true and the unknown tags of each image.
        probabilities: float `(num_images, num_classes)`.
        counts: right and wrong tags of each image and each tag, at 0.5 and at the thresholds.
        curves: average precision, AUROC and precision-recall curves of the tags.
        all_metrics: every metric over all images, by name. Those `_at_thresholds` measure the tags that `predict`
            returns; all others use a threshold of 0.5, as the metrics in `history.csv` do, such as `MicroF1()`.

    Example:
        >>> from model_trainer.tasks.multi_label_evaluation import evaluate_tags
        >>> targets = np.array([[1, 0], [1, 1], [0, np.nan]], np.float32)
        >>> probabilities = np.array([[0.9, 0.2], [0.4, 0.7], [0.1, 0.8]], np.float32)
        >>> evaluation = evaluate_tags(targets, probabilities, ("blue", "bold"), thresholds=(0.3, 0.5))
        >>> evaluation.mean_average_precision, round(evaluation.micro_f1, 3), evaluation.micro_f1_at_thresholds
        (1.0, 0.8, 1.0)
    """

    num_images: int
    num_bad: int
    classes: tuple[str, ...] = field(repr=False)
    thresholds: tuple[float, ...] = field(repr=False)
    labels: TagLabels = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    counts: TagCounts = field(repr=False)
    curves: TagCurves = field(repr=False)
    all_metrics: dict[str, Estimate]

    @property
    def loss(self) -> float:
        """Binary cross-entropy in nats, the mean over known labels."""
        return self.all_metrics["cross_entropy"].value

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision (mAP) over the tags that occur; NaN if none does."""
        return self.all_metrics["map"].value

    @property
    def micro_f1(self) -> float:
        """Micro-averaged F1 at a threshold of 0.5; NaN if no tag occurs or was predicted."""
        return self.all_metrics["micro_f1"].value

    @property
    def macro_f1(self) -> float:
        """Macro-averaged F1 at a threshold of 0.5, over the tags that occur or were predicted."""
        return self.all_metrics["macro_f1"].value

    @property
    def exact_match(self) -> float:
        """Fraction of the images of which every known tag is right at 0.5."""
        return self.all_metrics["exact_match"].value

    @property
    def micro_f1_at_thresholds(self) -> float:
        """Like `micro_f1`, at the threshold of each tag."""
        return self.all_metrics["micro_f1_at_thresholds"].value

    @property
    def macro_f1_at_thresholds(self) -> float:
        """Like `macro_f1`, at the threshold of each tag."""
        return self.all_metrics["macro_f1_at_thresholds"].value

    @property
    def exact_match_at_thresholds(self) -> float:
        """Like `exact_match`, at the threshold of each tag."""
        return self.all_metrics["exact_match_at_thresholds"].value

    @property
    def average_precision(self) -> np.ndarray:
        """Float `(num_classes,)`, NaN for a tag that does not occur."""
        return self.curves.average_precision

    @property
    def precision(self) -> np.ndarray:
        """Float `(num_classes,)`, at the thresholds; 0 for a tag that was never predicted."""
        return np.nan_to_num(self._by_tag["precision"]["value"])

    @property
    def recall(self) -> np.ndarray:
        """Float `(num_classes,)`, at the thresholds; 0 for a tag that does not occur."""
        return np.nan_to_num(self._by_tag["recall"]["value"])

    @property
    def f1(self) -> np.ndarray:
        """Float `(num_classes,)`, at the thresholds; 0 for a tag that neither occurs nor was predicted."""
        return np.nan_to_num(self._by_tag["f1"]["value"])

    @property
    def support(self) -> np.ndarray:
        """Int `(num_classes,)`, number of images with the tag."""
        return self.counts.tag_present

    @property
    def unknown(self) -> np.ndarray:
        """Int `(num_classes,)`, number of images for which the tag is unknown."""
        return self.num_images - self.counts.tag_known

    @cached_property
    def _by_tag(self) -> dict[str, dict[str, np.ndarray]]:
        return tag_estimates(self.counts, self._decisions)

    @property
    def _decisions(self) -> Decisions:
        return self.counts.decisions[1]

    def estimates(self) -> dict[str, Estimate]:
        return dict(self.all_metrics)

    def metrics(self) -> dict[str, str]:
        lines = {name: str(self.all_metrics[name]) for name in _SHOWN}
        lines["images"] = f"{self.num_images:,}"
        if self.num_bad:
            lines["unreadable"] = f"{self.num_bad:,}"
        num_missing = int(np.isnan(self.counts.loss).sum())
        if num_missing:
            lines["no prediction"] = f"{num_missing:,} (probabilities are NaN: the model has diverged)"
        return lines

    def table(self) -> tuple[list[str], list[list[str]]]:
        columns = (self.average_precision, self.thresholds, self.precision, self.recall, self.f1)
        return ["tag", "images", "average precision", "threshold", "precision", "recall", "f1"], [
            [name, str(images), *(f"{metric:.3f}" for metric in metrics)]
            for name, images, *metrics in zip(self.classes, self.support, *columns, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        present = self.labels.entries().present
        pairs = missed_together(present, self._decisions.is_hit, self.num_images, len(self.classes))
        at_k = [k for k in KS if f"precision_at_{k}" in self.all_metrics]
        by_support = sorted(self.curves.curves, key=lambda tag: (-self.support[tag], tag))
        return {
            **super().to_dict(),
            "classes": list(self.classes),
            "per_class": self._per_class(),
            "curves": [
                {
                    "class": self.classes[tag],
                    "average_precision": finite_or_none(self.average_precision[tag]),
                    **{name: values.tolist() for name, values in self.curves.curves[tag]._asdict().items()},
                }
                for tag in by_support
            ],
            "missed_together": [
                {"tags": [self.classes[tag] for tag in pair.tags], "images": pair.num_images, "expected": pair.expected}
                for pair in pairs
            ],
            "at_k": {
                name: {str(k): finite_or_none(self.all_metrics[f"{name}_at_{k}"].value) for k in at_k}
                for name in ("precision", "recall")
            },
        }

    def _per_class(self) -> dict[str, Any]:
        by_tag = self._by_tag | {
            "auroc": {"value": self.curves.auroc},
            "average_precision": {"value": self.average_precision},
            "threshold": {"value": np.array(self.thresholds)},
        }
        return {"images": self.support.tolist(), "unknown": self.unknown.tolist()} | {
            name: {key: [finite_or_none(value) for value in column] for key, column in values.items()}
            for name, values in by_tag.items()
        }

    def image_columns(self) -> dict[str, np.ndarray | list[str]]:
        """Returns the columns of `predictions.csv`; tags are in the order of the classes, joined by "|".

        `exact_match` is True for an image without a known tag, as none is wrong, and its `loss` is NaN.
        """
        entries = self.labels.entries().present
        bounds = np.searchsorted(entries.rows, np.arange(self.num_images + 1))
        predicted: list[str] = []
        for rows in row_chunks(self.probabilities, 32 << 20):
            image, tag = np.nonzero(self.probabilities[rows] >= self._decisions.thresholds)
            predicted += self._joined(tag, np.searchsorted(image, np.arange(rows.stop - rows.start + 1)))
        return {
            "true_labels": self._joined(entries.tags, bounds),
            "predicted_labels": predicted,
            "exact_match": exact_match(self.counts, self._decisions),
            "loss": self.scores()["loss"],
        }

    def _joined(self, tags: np.ndarray, bounds: np.ndarray) -> list[str]:
        names = [self.classes[tag] for tag in tags.tolist()]
        return ["|".join(names[start:stop]) for start, stop in pairwise(bounds.tolist())]

    def scores(self) -> dict[str, np.ndarray]:
        """Returns for each image, at the thresholds, "correct" (1 if every known tag is right, otherwise 0), "f1" (1 if
        it neither has nor gets a tag), and "loss" (mean over its known tags). NaN for an image without a known tag.
        """
        counts, decisions = self.counts, self._decisions
        is_known, f1_denominators = counts.num_known > 0, decisions.predicted + counts.num_present
        return {
            "correct": np.where(is_known, exact_match(counts, decisions), np.nan),
            "f1": np.where(is_known, fraction(2 * decisions.hits, f1_denominators, undefined=1.0), np.nan),
            "loss": fraction(counts.loss, counts.num_known),
        }

    def galleries(self) -> list[Gallery]:
        return galleries_of_tags(self.labels, self.counts, self.classes)

    def subset(self, rows: np.ndarray) -> dict[str, Estimate]:
        images = np.unique(np.arange(self.num_images)[rows])
        return estimate_subset(self.labels, self.probabilities, self.counts, images)


def evaluate_tags(
    labels: Labels,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    thresholds: tuple[float, ...],
    num_bad: int = 0,
    *,
    progress: Progress | None = None,
) -> MultiLabelEvaluation:
    """Computes the metrics of a multi-label classifier.

    Args:
        labels: `LabelRows`, or int `(num_images,)` if each image has one tag; or a dense table, float
            `(num_images, num_classes)`. A value of 0.5 or more is present, NaN unknown.
        probabilities: float `(num_images, num_classes)`, possibly memory-mapped.
        classes: names of the tags.
        thresholds: minimum probability of each tag.
        num_bad: number of images that could not be read.
        progress: called from time to time with what is being computed, and the fraction that is done.
    """
    is_dense = isinstance(labels, np.ndarray) and labels.ndim == 2
    rows = LabelRows.of_dense(np.asarray(labels)) if is_dense else rows_of(labels)
    tags = TagLabels(rows.starts, rows.classes, rows.values, len(classes))
    counts = count_tags(tags, probabilities, (np.full(len(classes), 0.5), np.asarray(thresholds)), progress)
    most_frequent = np.argsort(-counts.tag_present, kind="stable")[:_MAX_CURVES]
    f1_at = tuple(decisions.thresholds for decisions in counts.decisions)
    curves = rank_images(tags, probabilities, frozenset(most_frequent.tolist()), f1_at, progress)
    all_metrics = estimate_tags(counts, curves, progress=progress)
    return MultiLabelEvaluation(
        num_images=len(tags),
        num_bad=num_bad,
        classes=classes,
        thresholds=thresholds,
        labels=tags,
        probabilities=probabilities,
        counts=counts,
        curves=curves,
        all_metrics={name: all_metrics[name] for name in (*_SHOWN, *all_metrics)},
    )
