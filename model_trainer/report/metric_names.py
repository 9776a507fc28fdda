"""Names and explanations of metrics for readers who do not know their identifiers."""

from __future__ import annotations

import re

__all__ = ["is_fraction", "is_lower_better", "metric_explanation", "metric_name"]

# Words that are not written as their identifier.
WORDS = {
    "auroc": "AUROC", "f1": "F1", "map": "mAP", "ece": "ECE", "corrcoef": "correlation",
    "kappa": "kappa", "cohen": "Cohen's", "cohens": "Cohen's", "matthews": "Matthews", "nll": "log loss",
}  # fmt: skip

EXPLANATIONS = {
    "accuracy": "fraction of the images whose predicted class is right",
    "balanced_accuracy": "mean of the classes' recalls: each class counts the same, whatever its size",
    "sensitivity": "macro recall: mean of the classes' recalls",
    "top_k": "fraction of the images whose true class is among the {k} most probable ones",
    "precision": "of the images predicted as a class, the fraction that belongs to it",
    "recall": "of the images of a class, the fraction predicted as this class",
    "precision_at_k": "of the {k} most probable tags of an image, the fraction that it has",
    "recall_at_k": "of the tags of an image, the fraction among its {k} most probable ones",
    "specificity": "of the images of other classes, the fraction that was not predicted as this one",
    "f1": "harmonic mean of precision and recall",
    "auroc": "probability that an image of the class gets a higher score than another one; 0.5 is chance",
    "average_precision": "area under the precision-recall curve",
    "map": "mean of the tags' average precisions",
    "cross_entropy": "mean over known tags, in nats; confident mistakes cost most; lower is better",
    "log_loss": "cross-entropy in nats; confident mistakes cost most; lower is better",
    "loss": "cross-entropy in nats; confident mistakes cost most; lower is better",
    "brier": "squared error of the probabilities; lower is better",
    "ece": "expected calibration error: mean distance of confidence and accuracy; lower is better",
    "kappa": "agreement beyond chance: 0 is chance, 1 is perfect",
    "matthews": "correlation of true and predicted classes: 0 is chance, 1 is perfect",
    "exact_match": "fraction of the images whose tags are all right",
    "hamming": "fraction of wrong decisions over all images and tags; lower is better",
    "coverage": "how many of the most probable tags are needed to include all true ones; lower is better",
    "label_ranking_average_precision": "how high the true tags rank among all tags of an image; 1 is best",
}
KINDS = {
    "macro": "mean, each class or tag counts the same",
    "weighted": "mean, weighted by the images of each",
    "micro": "over all decisions together",
}
LOWER_IS_BETTER = ("loss", "entropy", "coverage", "brier", "ece", "hamming")


def metric_name(name: str) -> str:
    """The name of a metric for people.

    Example:
        >>> metric_name("top_5_accuracy"), metric_name("macro_f1"), metric_name("precision@3")
        ('Top-5 accuracy', 'Macro F1', 'Precision at 3')
    """
    name = re.sub(r"^top_?(\d+)_", r"top-\1 ", name)
    name = re.sub(r"@|_at_", " at ", name)
    words = [WORDS.get(word.lower(), word) for word in re.split(r"[_ ]+", name) if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:] if not text.startswith("mAP") else text


def metric_explanation(name: str) -> str:
    """What a metric means, in a few words; empty for one that is not known.

    Example:
        >>> metric_explanation("macro_recall")
        'of the images of a class, the fraction predicted as this class; mean, each class or tag counts the same'
    """
    if match := re.match(r"top_?(\d+)_", name):
        return EXPLANATIONS["top_k"].format(k=match[1])
    if match := re.match(r"(precision|recall)_at_(\d+)$", name):
        return EXPLANATIONS[f"{match[1]}_at_k"].format(k=match[2])
    name, threshold = re.match(r"(.*?)(?:(?:@|_at_)(.*))?$", name).groups()  # type: ignore[union-attr]  # matches all
    if name in EXPLANATIONS and not threshold:
        return EXPLANATIONS[name]
    kind = next((KINDS[word] for word in name.split("_") if word in KINDS), "")
    rest = "_".join(
        word for word in name.split("_") if word not in (*KINDS, "cohen", "cohens", "corrcoef", "error", "loss")
    )
    base = EXPLANATIONS.get(rest, "")
    at = {"thresholds": "at the threshold of each tag", None: ""}.get(threshold, f"at {threshold}")
    return "; ".join(part for part in (base, kind, at) if base and part)


def is_fraction(name: str, value: float | None, low: float | None = None, high: float | None = None) -> bool:
    """Whether a metric is a fraction between 0 and 1 that can be drawn on a scale, the more the better."""
    if value is None or is_lower_better(name) or "kappa" in name or "matthews" in name:
        return False
    return all(0 <= each <= 1 for each in (value, low, high) if each is not None)


def is_lower_better(name: str) -> bool:
    """Whether a lower value of a metric is the better one, as for a loss."""
    return any(word in name for word in LOWER_IS_BETTER)
