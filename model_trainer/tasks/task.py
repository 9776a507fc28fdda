"""The family of tasks: a task builds the head of a network, and says what its outputs mean."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from model_trainer.config import Call, Choice, Config, Live
from model_trainer.sources.examples import Examples
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.tasks.head import HeadOptions, make_head
from model_trainer.tasks.losses import Activation, Loss
from model_trainer.tasks.metrics import AdditiveMetric, FullPassMetric, Metric

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from model_trainer.pipeline.batch import Batch

__all__ = ["BatchPredictions", "Encoded", "Factors", "Output", "Task"]


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


class Encoded(NamedTuple):
    """The targets of a batch as its task learns them. Each leaf has the batch's rows, which a step may divide.

    Attributes:
        targets: a structure of the task's own.
        weights: float32 `(batch,)`, as declared, which metrics count by; 0 of images that could not be read.
        loss_weights: float32 `(batch,)`, factor of each example's loss.
        counts: float32 `(batch,)`, what each example adds to the number by which the batch's loss is divided.
    """

    targets: Any
    weights: tf.Tensor
    loss_weights: tf.Tensor
    counts: tf.Tensor


class BatchPredictions(NamedTuple):
    """What is kept of a validation for metrics over all of it; arrays or tensors.

    Attributes:
        targets: as the task encodes them; of classes and tags float32 `(num_images, num_classes)`, NaN where unknown.
        probabilities: as the task gives them; of classes and tags float32 `(num_images, num_classes)`.
        weights: float32 `(num_images,)`; those with 0 are dropped.
    """

    targets: Any
    probabilities: Any
    weights: Any


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
    """What a network learns. The first metric is the main one: `model_max_...` follows it.

    Nothing outside of `tasks/` asks which task it is: a task builds the head, turns the network's outputs into a loss,
    metrics and predictions, and evaluates these.

    Attributes:
        label_kind: whether each image has one class, or any number of tags; a metric fits if it has the same.
        needs_whole_batch: whether the loss compares the examples of a batch with each other, so that it cannot be
            computed on parts of it. Such a task trains on one device without accumulation.
    """

    label_kind: ClassVar[Literal["single", "tags"]] = "single"
    needs_whole_batch: ClassVar[bool] = False

    metrics: tuple[Metric, ...]
    outputs: tuple[Output, ...] = ()  # empty: one output; otherwise the first is the one that predicts

    # --- The data

    @abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises DataError or ConfigError when this task cannot learn from these examples."""

    @abstractmethod
    def factors(self, examples: Examples) -> Factors:
        """Factors of the training loss, from what is declared and from the counts."""

    # --- The network

    def head(self, features: keras.KerasTensor, options: HeadOptions, num_classes: int) -> list[keras.KerasTensor]:
        """The outputs computed from a backbone's features, before `head_activation`: logits, for instance.

        Args:
            features: `(batch, height, width, channels)`, or `(batch, channels)`.
        """
        return make_head(features, options, tuple(output.name for output in self.outputs), num_classes)

    @property
    @abstractmethod
    def head_activation(self) -> Literal["softmax", "sigmoid", "none"]:
        """Activation of the saved network's last layer."""

    @property
    def loss_activation(self) -> Activation | None:
        """By which the outputs become probabilities, as the loss takes them; None where they are no logits."""
        return None

    @abstractmethod
    def probabilities(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        """What metrics and predictions are made of, from the network's outputs before `head_activation`.

        Of classes and tags float32 `(batch, num_classes)`.
        """

    # --- The step

    @abstractmethod
    def targets(self, labels: Any, num_classes: int) -> Any:
        """What is learnt, such as float32 `(batch, num_classes)`, from a batch's targets."""

    @abstractmethod
    def example_weights(self, targets: Any, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        """float32 `(batch,)`: how much each example's loss counts."""

    def losses(self, targets: Any, outputs: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        """float32 `(batch,)`: the loss of each example, summed over outputs with their weights.

        A task that needs the whole batch overrides `loss_sum` instead.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither losses nor a loss_sum of its own.")

    def encode(self, batch: Batch, factors: Factors, loss_mean: str = "examples") -> Encoded:
        """The targets and weights of a batch.

        Args:
            loss_mean: what the sum of losses is divided by, see `Training.loss_mean`.
        """
        import tensorflow as tf

        num_classes = len(factors.of_class)
        targets, declared = self.targets(batch.targets, num_classes), batch.declared_weights
        loss_weights = self.example_weights(targets, declared, factors)
        if loss_mean == "weights":
            return Encoded(targets, declared, loss_weights, loss_weights)
        is_there = self.example_weights(targets, batch.weights, Factors.ones(num_classes)) > 0
        return Encoded(targets, declared, loss_weights, tf.cast(is_there, tf.float32))

    def loss_sum(self, outputs: list[tf.Tensor], encoded: Encoded, factors: Factors) -> tf.Tensor:
        """float32 `()`: the sum of the losses of the examples in `encoded`, each with its weight."""
        import tensorflow as tf

        return tf.reduce_sum(self.losses(encoded.targets, outputs, factors) * encoded.loss_weights)

    def metric_sums(self, outputs: list[tf.Tensor], encoded: Encoded) -> dict[str, tf.Tensor]:
        """What the examples add to the counted metrics, by name; see `AdditiveMetric.sums`."""
        probabilities = self.probabilities(outputs)
        return {
            metric.name: metric.sums(encoded.targets, probabilities, encoded.weights)
            for metric in self.additive_metrics
        }

    def predictions(self, outputs: list[tf.Tensor], encoded: Encoded) -> BatchPredictions:
        """What is kept of a validation's batch."""
        return BatchPredictions(encoded.targets, self.probabilities(outputs), encoded.weights)

    # --- The metrics

    @property
    def additive_metrics(self) -> tuple[AdditiveMetric, ...]:
        """The metrics that are had of training too."""
        return tuple(metric for metric in self.metrics if isinstance(metric, AdditiveMetric))

    @property
    def full_pass_metrics(self) -> tuple[FullPassMetric, ...]:
        """The metrics over all predictions of a validation."""
        return tuple(metric for metric in self.metrics if isinstance(metric, FullPassMetric))

    @property
    def wants_predictions(self) -> bool:
        """Whether the predictions of a validation are to be collected."""
        return bool(self.full_pass_metrics)

    def full_pass_results(self, predictions: BatchPredictions) -> dict[str, float]:
        """The collected metrics of a whole validation, by name."""
        return {metric.name: metric.compute(*predictions) for metric in self.full_pass_metrics}

    def fit_thresholds(self, predictions: BatchPredictions) -> tuple[float, ...] | None:
        """From which probability on each class counts as present, by a validation; None where that is no question."""
        return None

    def majority_baseline(self, examples: Examples) -> tuple[float, str] | None:
        """The main metric if the largest class is always predicted, and that class; None where that says little."""
        return None

    # --- The answers

    @abstractmethod
    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """What `predict` says of one image: `[{"label": name, "probability": p}, ...]`, the most probable first.

        Each prediction has a label, and one number or several by name.

        Args:
            top: how many labels; None leaves it to the task.
            thresholds: of each class, as fitted.
        """

    @abstractmethod
    def evaluate(
        self,
        targets: np.ndarray,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        num_bad: int = 0,
    ) -> Evaluation:
        """How good the answers are.

        Args:
            targets, probabilities: as in `BatchPredictions`.
            thresholds: of each class, as fitted.
            num_bad: images that could not be read.
        """
