"""Computes the metrics of a trained model on examples."""

from __future__ import annotations

from model_trainer.evaluation.predictions import predict_examples
from model_trainer.model_files.load import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.tasks.evaluation import Evaluation

__all__ = ["evaluate_model"]


def evaluate_model(trained: TrainedModel, examples: Examples, batch_size: int = 32) -> Evaluation:
    """Runs the model on the examples and computes the metrics of its task.

    Args:
        batch_size: number of images that are computed together.

    Raises:
        DataError: no image could be read, or classes or labels of the examples differ from the model's.
    """
    result = predict_examples(trained, examples, batch_size)
    return trained.task.evaluate(
        result.targets, result.probabilities, trained.classes, trained.thresholds, result.num_bad
    )
