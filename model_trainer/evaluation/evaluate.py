"""A trained model and examples to the metrics of its task."""

from __future__ import annotations

from model_trainer.evaluation.predictions import predict_examples
from model_trainer.model_files.load import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.tasks.evaluation import Evaluation

__all__ = ["evaluate_model"]


def evaluate_model(trained: TrainedModel, examples: Examples, batch_size: int = 32) -> Evaluation:
    """Runs the model over the examples and computes its task's metrics.

    Raises:
        DataError: no image could be read, or the examples have other classes or labels than the model.
    """
    found = predict_examples(trained, examples, batch_size)
    return trained.task.evaluate(found.targets, found.probabilities, trained.classes, trained.thresholds, found.num_bad)
