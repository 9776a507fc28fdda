"""Figures of a tagger on labelled images, by scikit-learn; labels that nobody knows count nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from model_trainer.tasks.evaluation import Evaluation
from model_trainer.tasks.multi_label_metrics import MacroF1, MicroF1, average_precisions

__all__ = ["MultiLabelEvaluation", "evaluate_tags"]


@dataclass(frozen=True)
class MultiLabelEvaluation(Evaluation):
    """How good a tagger is on some data.

    Attributes:
        num_images, num_bad: that could be read, and that could not.
        loss: binary cross-entropy in nats, the mean over known labels.
        mean_average_precision: over the classes that occur; NaN if none does.
        micro_f1, macro_f1, exact_match: of the tags from a probability of 0.5 on, as `MicroF1()` and its kin count them
            in `history.csv`; macro over the classes that occur or were said.
        micro_f1_at_thresholds, macro_f1_at_thresholds, exact_match_at_thresholds: of the tags from their thresholds on,
            which is what `predict` gives.
        classes: names.
        thresholds: from which probability on each tag is given.
        average_precision: float `(num_classes,)`, NaN for a class that does not occur.
        precision, recall, f1: float `(num_classes,)`, at the thresholds.
        support: int `(num_classes,)`, images that have the tag.
        unknown: int `(num_classes,)`, images of which nobody knows.
    """

    num_images: int
    num_bad: int
    loss: float
    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    exact_match: float
    micro_f1_at_thresholds: float
    macro_f1_at_thresholds: float
    exact_match_at_thresholds: float
    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    average_precision: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    unknown: np.ndarray

    def metrics(self) -> dict[str, str]:
        of_all = {
            "map": self.mean_average_precision,
            "cross_entropy": self.loss,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "exact_match": self.exact_match,
            "micro_f1_at_thresholds": self.micro_f1_at_thresholds,
            "macro_f1_at_thresholds": self.macro_f1_at_thresholds,
            "exact_match_at_thresholds": self.exact_match_at_thresholds,
        }
        unreadable = {"unreadable": f"{self.num_bad:,}"} if self.num_bad else {}
        return {"images": f"{self.num_images:,}", **unreadable} | {name: f"{of_all[name]:.4f}" for name in of_all}

    def table(self) -> tuple[list[str], list[list[str]]]:
        columns = (self.average_precision, self.thresholds, self.precision, self.recall, self.f1)
        return ["tag", "images", "average precision", "threshold", "precision", "recall", "f1"], [
            [name, str(self.support[index]), *(f"{column[index]:.3f}" for column in columns)]
            for index, name in enumerate(self.classes)
        ]


def evaluate_tags(
    targets: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    thresholds: tuple[float, ...],
    num_bad: int = 0,
) -> MultiLabelEvaluation:
    """The metrics.

    Args:
        targets: float `(num_images, num_classes)`; NaN is unknown.
        probabilities: float `(num_images, num_classes)`.
        thresholds: of each class.
    """
    known = ~np.isnan(targets)
    present = known & (targets >= 0.5)
    said = probabilities >= np.asarray(thresholds, np.float32)
    micro, macro, exact = _of_all(present, probabilities >= 0.5, known)
    micro_at, macro_at, exact_at = _of_all(present, said, known)
    each = [
        metrics.precision_recall_fscore_support(
            present[known[:, index], index], said[known[:, index], index], average="binary", zero_division=0.0
        )
        if known[:, index].any()
        else (0.0, 0.0, 0.0, None)
        for index in range(len(classes))
    ]
    precision, recall, f1 = (np.array(column, np.float64) for column in list(zip(*each, strict=True))[:3])
    precisions = average_precisions(targets, probabilities, np.ones(len(targets), np.float32))
    p = np.clip(probabilities, 1e-7, 1.0 - 1e-7)
    with np.errstate(invalid="ignore"):
        cross_entropy = -(targets * np.log(p) + (1.0 - targets) * np.log1p(-p))
    return MultiLabelEvaluation(
        num_images=len(targets),
        num_bad=num_bad,
        loss=float(cross_entropy[known].mean()),
        mean_average_precision=float(np.nanmean(precisions)) if present.any() else float("nan"),
        micro_f1=micro,
        macro_f1=macro,
        exact_match=exact,
        micro_f1_at_thresholds=micro_at,
        macro_f1_at_thresholds=macro_at,
        exact_match_at_thresholds=exact_at,
        classes=classes,
        thresholds=thresholds,
        average_precision=precisions,
        precision=precision,
        recall=recall,
        f1=f1,
        support=present.sum(axis=0),
        unknown=(~known).sum(axis=0),
    )


def _of_all(present: np.ndarray, said: np.ndarray, known: np.ndarray) -> tuple[float, float, float]:
    """Micro F1, macro F1 over the classes that occur or were said, and the share of images without a mistake."""
    parts = (present & said, said & ~present, present & ~said)
    counts = np.concatenate([(part & known).sum(axis=0) for part in parts])
    micro = float(np.nan_to_num(MicroF1().value(counts)))  # 0 where no tag occurs or was said
    return micro, MacroF1().value(counts), float(((present == said) | ~known).all(axis=1).mean())
