"""The base of tasks: a task builds the head of a network, computes loss and metrics, and decodes predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from model_trainer.config import Choice, Config
from model_trainer.metrics.chunks import Progress
from model_trainer.sources.examples import Examples
from model_trainer.sources.labels.kinds import Labels
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.tasks.head import HeadOptions, make_head
from model_trainer.tasks.losses import Activation, Loss
from model_trainer.tasks.metrics import AdditiveMetric, FullPassMetric, Metric
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from model_trainer.pipeline.batch import Batch

__all__ = ["BatchPredictions", "Encoded", "Factors", "Output", "Task"]


class Factors(NamedTuple):
    """Factors of the training loss, float32 `(num_classes,)` each. They do not apply in validation.

    Attributes:
        class_weights: factor of the loss of each class's images, or of each tag.
        positive_weights: additional factor of a tag's loss in the images that have the tag.
    """

    class_weights: np.ndarray
    positive_weights: np.ndarray

    @classmethod
    def ones(cls, num_classes: int) -> Factors:
        """Returns factors of 1, which have no effect."""
        return cls(np.ones(num_classes, np.float32), np.ones(num_classes, np.float32))


class Encoded(NamedTuple):
    """The encoded targets of a batch. The first axis of each tensor is the batch, which a step may split.

    Attributes:
        targets: a tensor or a structure of tensors, as the task defines it.
        weights: float32 `(batch,)`, the declared weights, used by metrics; 0 for images that could not be read.
        loss_weights: float32 `(batch,)`, factor of each example's loss.
        counts: float32 `(batch,)`, contribution of each example to the divisor of the batch's loss.
    """

    targets: Any
    weights: tf.Tensor
    loss_weights: tf.Tensor
    counts: tf.Tensor


class BatchPredictions(NamedTuple):
    """Predictions that a validation collects for metrics over all of them; arrays or tensors.

    Attributes:
        targets: as the task encodes them; for classes and tags float32 `(num_images, num_classes)`, NaN if unknown.
        probabilities: as the task computes them; for classes and tags float32 `(num_images, num_classes)`.
        weights: float32 `(num_images,)`; images with 0 are dropped.
    """

    targets: Any
    probabilities: Any
    weights: Any


class Output(Config):
    """One of several outputs of a network, with a loss and a loss weight.

    Fields:
        name: of the output; with the user's own model the name that Keras gives it (`model.output_names`).
        loss: None takes the task's loss.
        weight: factor of its loss in the sum.

    Example:
        >>> task = Classification(outputs=(Output("main"), Output("auxiliary", loss=Focal(), weight=0.3)))
    """

    name: str
    loss: Loss | Call | Live | None = None
    weight: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Task(Choice):
    """What a network learns: its head, loss, metrics and the decoding of predictions.

    The first metric is the main one, which selects `model_max_acc.hdf5` whatever its name is. Code outside of `tasks/`
    never checks which task it has: a task builds the head, computes loss, metrics and predictions from the network's
    outputs, and evaluates the predictions.

    Attributes:
        label_kind: "single" if each image has one class, "tags" if it has any number; metrics must have the same.
        needs_whole_batch: whether the loss compares the examples of a batch with each other, so that it cannot be
            computed on slices of the batch. Such a task trains on one device, without gradient accumulation.
    """

    label_kind: ClassVar[Literal["single", "tags"]] = "single"
    needs_whole_batch: ClassVar[bool] = False

    metrics: tuple[Metric, ...]
    outputs: tuple[Output, ...] = ()  # empty for a single output; with several the first one predicts

    # --- The data

    @abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises DataError or ConfigError if this task cannot learn from these examples."""

    @abstractmethod
    def factors(self, examples: Examples) -> Factors:
        """Returns the factors of the training loss, from the declared weights and the class counts."""

    # --- The network

    def head(self, features: keras.KerasTensor, options: HeadOptions, num_classes: int) -> list[keras.KerasTensor]:
        """Builds the head and returns its outputs before `head_activation`, such as logits.

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
        """The activation that turns outputs into the probabilities of the loss; None if outputs are not logits."""
        return None

    @abstractmethod
    def probabilities(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns the probabilities for metrics and predictions, from the network's outputs before `head_activation`.

        For classes and tags they are float32 `(batch, num_classes)`.
        """

    # --- The step

    @abstractmethod
    def targets(self, labels: Any, num_classes: int) -> Any:
        """Returns the targets of the loss, such as float32 `(batch, num_classes)`, from a batch's labels."""

    @abstractmethod
    def example_weights(self, targets: Any, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        """Returns float32 `(batch,)`: the factor of each example's loss."""

    def losses(self, targets: Any, outputs: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        """Returns float32 `(batch,)`: the loss of each example, summed over outputs with their weights.

        A task that needs the whole batch overrides `loss_sum` instead.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither losses nor loss_sum.")

    def encode(self, batch: Batch, factors: Factors, loss_mean: str = "examples") -> Encoded:
        """Returns the targets and weights of a batch.

        Args:
            loss_mean: divisor of the summed losses, see `Training.loss_mean`.
        """
        import tensorflow as tf

        num_classes = len(factors.class_weights)
        targets, declared_weights = self.targets(batch.targets, num_classes), batch.declared_weights
        loss_weights = self.example_weights(targets, declared_weights, factors)
        if loss_mean == "weights":
            return Encoded(targets, declared_weights, loss_weights, loss_weights)
        is_counted = self.example_weights(targets, batch.weights, Factors.ones(num_classes)) > 0
        return Encoded(targets, declared_weights, loss_weights, tf.cast(is_counted, tf.float32))

    def loss_sum(self, outputs: list[tf.Tensor], encoded: Encoded, factors: Factors) -> tf.Tensor:
        """Returns float32 `()`: the weighted sum of the losses of the examples in `encoded`."""
        import tensorflow as tf

        return tf.reduce_sum(self.losses(encoded.targets, outputs, factors) * encoded.loss_weights)

    def metric_sums(self, outputs: list[tf.Tensor], encoded: Encoded) -> dict[str, tf.Tensor]:
        """Returns the sums of the additive metrics over the examples, by name; see `AdditiveMetric.sums`."""
        probabilities = self.probabilities(outputs)
        return {
            metric.name: metric.sums(encoded.targets, probabilities, encoded.weights)
            for metric in self.additive_metrics
        }

    def predictions(self, outputs: list[tf.Tensor], encoded: Encoded) -> BatchPredictions:
        """Returns the predictions of a validation batch, for metrics over all of them."""
        return BatchPredictions(encoded.targets, self.probabilities(outputs), encoded.weights)

    # --- The metrics

    @property
    def additive_metrics(self) -> tuple[AdditiveMetric, ...]:
        """The metrics that are computed in training and in validation."""
        return tuple(metric for metric in self.metrics if isinstance(metric, AdditiveMetric))

    @property
    def full_pass_metrics(self) -> tuple[FullPassMetric, ...]:
        """The metrics that are computed in validation only, over all predictions."""
        return tuple(metric for metric in self.metrics if isinstance(metric, FullPassMetric))

    @property
    def wants_predictions(self) -> bool:
        """Whether validation must collect its predictions."""
        return bool(self.full_pass_metrics)

    def full_pass_results(self, predictions: BatchPredictions) -> dict[str, float]:
        """Returns the full-pass metrics of a validation, by name."""
        return {metric.name: metric.compute(*predictions) for metric in self.full_pass_metrics}

    def fit_thresholds(self, predictions: BatchPredictions) -> tuple[float, ...] | None:
        """Fits the threshold of each class to the predictions of a validation; None for a task without thresholds."""
        return None

    def majority_baseline(self, examples: Examples) -> tuple[float, str] | None:
        """Returns the main metric for always predicting the most frequent class, and that class; or None."""
        return None

    # --- Predictions

    @abstractmethod
    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """Returns the predictions for one image: `[{"label": name, "probability": p}, ...]`, the most probable first.

        Each prediction has a label and one or several named numbers.

        Args:
            probabilities: float `(num_classes,)` for classes and tags.
            classes: names of the classes.
            top: number of predictions; None leaves it to the task.
            thresholds: fitted threshold of each class.
        """

    @abstractmethod
    def evaluate(
        self,
        labels: Labels,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        num_bad: int = 0,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Returns the metrics of predictions on labeled data.

        Args:
            labels: as `Examples.labels`: int32 `(num_images,)`, or `LabelRows`; or a dense table, float
                `(num_images, num_classes)`, in which NaN is unknown.
            probabilities: as the task computes them; for classes and tags float32 `(num_images, num_classes)`. They may
                be a memory map that is larger than the memory, so they are read in chunks.
            classes: names of the classes.
            thresholds: fitted threshold of each class.
            num_bad: number of images that could not be read.
            progress: called from time to time with what is being computed, and the fraction that is done.
        """
