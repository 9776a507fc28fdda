"""Compares the predictions of a model in a faster precision with those in float32."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.errors import ConfigError
from model_trainer.evaluation.compare import compare_evaluated
from model_trainer.evaluation.evaluate import EvaluatedModel, evaluate_model
from model_trainer.inference.choose import EngineName, make_engine, measure, sample_images
from model_trainer.inference.openvino import has_openvino
from model_trainer.inference.precision_check import PrecisionCheck, hash_of
from model_trainer.metrics.paired import PairedComparison
from model_trainer.model_files.trained_model import Engine, TrainedModel
from model_trainer.sources.examples import Examples

__all__ = ["MAX_LOSS", "MIN_SAME_LABELS", "PrecisionComparison", "compare_precisions"]

# Retraining with another seed changes more: a few percent of the labels, and the accuracy by about its interval.
MIN_SAME_LABELS = 0.99
MAX_LOSS = 0.005  # of the main metric


@dataclass(frozen=True)
class PrecisionComparison:
    """A faster precision compared with float32.

    Attributes:
        check: the result, as it is recorded next to the model file.
        correct: the change of the fraction of correctly predicted images, with its interval; None for a task whose
            evaluation has no score "correct".
    """

    check: PrecisionCheck
    correct: PairedComparison | None


def compare_precisions(
    trained: TrainedModel,
    examples: Examples,
    precision: str,
    engine: EngineName = "auto",
    *,
    batch_size: int = 32,
    console: Console | None = None,
) -> PrecisionComparison:
    """Predicts labeled images in float32, without an engine, and in a faster precision.

    The check passes if at least `MIN_SAME_LABELS` of the images have the same predicted label, or exactly the same
    tags, and the main metric is not more than `MAX_LOSS` lower, and all probabilities are finite.

    Args:
        precision: "bfloat16" or "float16".
        engine: "auto" is OpenVINO on CPUs if it is installed and has the precision, otherwise TensorFlow.
        batch_size: images per batch, also in the measurement of the speed.
        console: shows progress.

    Raises:
        MissingExtra, ConfigError: the engine or the precision is not available.
        DataError: see `evaluate_model`.
    """
    if precision == "float32":
        raise ConfigError("should be bfloat16 or float16, got float32, which needs no check.", "precision")
    faster = replace(trained, engine=_engine(trained, engine, precision))
    assert faster.engine is not None
    exact = evaluate_model(trained, examples, batch_size, console=console)
    other = evaluate_model(faster, examples, batch_size, console=console)
    before, after = exact.predictions.probabilities, other.predictions.probabilities
    metric, estimate = next(iter(exact.evaluation.estimates().items()))
    value = other.evaluation.estimates()[metric].value
    same = float(np.mean([_labels(exact, one) == _labels(other, two) for one, two in zip(before, after, strict=True)]))
    is_finite = bool(np.isfinite(after).all() and np.isfinite(before).all())
    exact_engine = make_engine(trained, faster.engine.name)
    seconds = measure((exact_engine, faster.engine), sample_images(trained, batch_size))
    check = PrecisionCheck(
        sha256=hash_of(trained.path),
        precision=precision,
        engine=faster.engine.name,
        data=examples.origin,
        num_images=len(before),
        same_labels=same,
        largest_change=float(np.abs(after - before).max()) if is_finite else 1.0,
        metric=metric,
        before=float(estimate.value),
        after=float(value),
        speed=seconds[0] / seconds[1],
        batch_size=batch_size,
        # A metric that is undefined in both is not lower.
        passed=same >= MIN_SAME_LABELS and not value < estimate.value - MAX_LOSS and is_finite,
    )
    return PrecisionComparison(check, compare_evaluated([exact, other])[0].scores.get("correct"))


def _engine(trained: TrainedModel, engine: EngineName, precision: str) -> Engine:
    if engine != "auto":
        return make_engine(trained, engine, precision)
    if has_openvino() and not tf.config.list_logical_devices("GPU"):
        try:
            return make_engine(trained, "openvino", precision)
        except ConfigError as reason:
            logging.info("%s", reason)
    return make_engine(trained, "keras", precision)


def _labels(evaluated: EvaluatedModel, row: np.ndarray) -> frozenset[str]:
    """The predicted label, or the predicted tags."""
    trained = evaluated.trained
    top = None if trained.task.label_kind == "tags" else 1
    return frozenset(each["label"] for each in trained.task.decode(row, trained.classes, top, trained.thresholds))
