"""The family of tasks: what every task says about head, targets, loss, metrics and predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import model_validator

from model_trainer.config import Call, Choice, Config, Live
from model_trainer.sources.examples import Examples
from model_trainer.tasks.losses import Activation, Loss
from model_trainer.tasks.metrics import CollectedMetric, CountedMetric, Metric

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Factors", "Output", "Task"]


class Factors(NamedTuple):
    """What the training loss is multiplied with; float32 `(num_classes,)` each. Validation counts all the same.

    Attributes:
        of_class: the loss of each class's images, or of each tag.
        of_present: besides, the loss of a tag where it is present.
    """

    of_class: np.ndarray
    of_present: np.ndarray

    @classmethod
    def ones(cls, num_classes: int) -> Factors:
        """Factors that change nothing."""
        return cls(np.ones(num_classes, np.float32), np.ones(num_classes, np.float32))


class Output(Config):
    """One of several outputs of a network.

    Fields:
        name: of the output; with the user's own model the name Keras gives it (`model.output_names`).
        loss: None takes the task's.
        weight: factor of its loss in the sum.
    """

    name: str
    loss: Loss | Call | Live | None = None
    weight: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _of_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Task(Choice):
    """What a network learns. The first metric is the main one: `model_max_...` follows it."""

    metrics: tuple[Metric, ...]
    outputs: tuple[Output, ...] = ()  # empty: one output; otherwise the first is the one that predicts

    @property
    @abstractmethod
    def loss_activation(self) -> Activation:
        """How logits become probabilities."""

    @property
    @abstractmethod
    def head_activation(self) -> str:
        """Activation of the saved network's last layer: softmax, sigmoid or none."""

    @abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises DataError or ConfigError when this task cannot learn from these examples."""

    @abstractmethod
    def factors(self, examples: Examples) -> Factors:
        """Factors of the training loss, from what is declared and from the counts."""

    @abstractmethod
    def targets(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """float32 `(batch, num_classes)` from the pipeline's labels."""

    @abstractmethod
    def example_weights(self, targets: tf.Tensor, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        """float32 `(batch,)`: how much each example's loss counts; the batch's loss is the weighted mean."""

    @abstractmethod
    def losses(self, targets: tf.Tensor, logits: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        """float32 `(batch,)`: the loss of each example, summed over outputs with their weights."""

    @property
    def counted_metrics(self) -> tuple[CountedMetric, ...]:
        """The metrics that are had of training too."""
        return tuple(metric for metric in self.metrics if isinstance(metric, CountedMetric))

    @property
    def collected_metrics(self) -> tuple[CollectedMetric, ...]:
        """The metrics over all predictions of a validation."""
        return tuple(metric for metric in self.metrics if isinstance(metric, CollectedMetric))

    @property
    def wants_predictions(self) -> bool:
        """Whether the predictions of a validation are to be collected."""
        return bool(self.collected_metrics)

    def fit_thresholds(
        self, targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
    ) -> tuple[float, ...] | None:
        """From which probability on each class counts as present, by a validation; None where that is no question."""
        return None

    @abstractmethod
    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """What `predict` says of one image: `[{"label": name, "probability": p}, ...]`, the most probable first.

        Args:
            top: how many labels; None leaves it to the task.
            thresholds: of each class, as fitted.
        """
