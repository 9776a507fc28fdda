"""The family of tasks: what every task says about head, targets, loss, metrics and predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from model_trainer.config import Call, Choice, Config, Live
from model_trainer.sources.examples import Examples
from model_trainer.tasks.losses import Activation, Loss
from model_trainer.tasks.metrics import Metric

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Output", "Task"]


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
    def class_factors(self, examples: Examples) -> np.ndarray:
        """float32 `(num_classes,)`: what the training loss of each class's images is multiplied with.

        Metrics and the validation loss count every image the same.
        """

    @abstractmethod
    def targets(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """float32 `(batch, num_classes)` from the pipeline's labels."""

    @abstractmethod
    def losses(self, targets: tf.Tensor, logits: list[tf.Tensor]) -> tf.Tensor:
        """float32 `(batch,)`: the loss of each example, summed over outputs with their weights."""

    @abstractmethod
    def decode(self, probabilities: np.ndarray, classes: tuple[str, ...], top: int) -> list[dict[str, Any]]:
        """What `predict` says of one image: `[{"label": name, "probability": p}, ...]`, the most probable first."""
