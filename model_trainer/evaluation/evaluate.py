"""A trained model and examples to the figures of its task."""

from __future__ import annotations

from model_trainer.evaluation.classification import Evaluation, classification_figures
from model_trainer.evaluation.multi_label import MultiLabelEvaluation, multi_label_figures
from model_trainer.evaluation.predictions import predict_examples
from model_trainer.models.load import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.tasks.multi_label import MultiLabel

__all__ = ["evaluate_model"]


def evaluate_model(
    trained: TrainedModel, examples: Examples, batch_size: int = 32
) -> Evaluation | MultiLabelEvaluation:
    """Runs the model over the examples and computes its task's figures.

    Raises:
        DataError: no image could be read, or the examples have other classes or labels than the model.
    """
    predictions = predict_examples(trained, examples, batch_size)
    if isinstance(trained.task, MultiLabel):
        thresholds = trained.thresholds or trained.task.declared_thresholds(len(trained.classes))
        return multi_label_figures(predictions, trained.classes, thresholds)
    labels = predictions.targets.argmax(axis=1)
    return classification_figures(labels, predictions.probabilities, trained.classes, predictions.num_bad)
