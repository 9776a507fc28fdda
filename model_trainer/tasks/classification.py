"""Single-label classification: each image belongs to exactly one class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from pydantic import Field

from model_trainer.config import Call, Live
from model_trainer.errors import ConfigError, DataError
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples
from model_trainer.tasks.losses import Activation, CrossEntropy, Loss, make_loss
from model_trainer.tasks.metrics import Accuracy, Metric
from model_trainer.tasks.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Classification"]


@final
class Classification(Task):
    """One class for each image.

    Fields:
        label_smoothing: this share of each target is spread evenly over all classes, 0 to below 1.
        loss: ours, `Call("my_code.loss")`, or any Keras loss object; compared with probabilities.
        metrics: the first is the main one. Adding `MacroRecall()` also keeps `model_max_sensitivity.hdf5`.
        class_weights: None; "balanced", so that each class counts the same in total; or a weight by class name.
        activation: of the saved network's last layer; "none" leaves logits, which `predict` reads as softmax's.
        outputs: several outputs with a loss and a weight each; all learn the same labels, the first predicts.
    """

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    loss: Loss | Call | Live = CrossEntropy()
    metrics: tuple[Metric, ...] = Field((Accuracy(),), min_length=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    @property
    def loss_activation(self) -> Activation:
        return "sigmoid" if self.activation == "sigmoid" else "softmax"

    @property
    def head_activation(self) -> str:
        return self.activation

    def check(self, examples: Examples) -> None:
        if len(examples.classes) < 2:
            raise DataError(
                f"{examples.origin} has one class, {examples.classes[0]!r}; telling classes apart needs at least two. "
                "Add a folder for another class."
            )
        if isinstance(self.class_weights, dict):
            for name in self.class_weights:
                if name not in examples.classes:
                    raise ConfigError(
                        f"names a class that the data does not have.{nearest(name, examples.classes)}",
                        f"task.class_weights.{name}",
                    )

    def class_factors(self, examples: Examples) -> np.ndarray:
        if self.class_weights is None:
            return np.ones(len(examples.classes), np.float32)
        if self.class_weights == "balanced":
            # As scikit-learn's compute_class_weight: num_examples / (num_classes * count).
            counts = np.bincount(examples.labels, weights=examples.weights, minlength=len(examples.classes))
            return (counts.sum() / (len(counts) * counts)).astype(np.float32)
        return np.array([self.class_weights.get(name, 1.0) for name in examples.classes], np.float32)

    def targets(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        import tensorflow as tf

        return tf.one_hot(labels, num_classes)

    def losses(self, targets: tf.Tensor, logits: list[tf.Tensor]) -> tf.Tensor:
        import tensorflow as tf

        if self.label_smoothing:
            spread = self.label_smoothing / int(targets.shape[-1])
            targets = targets * (1.0 - self.label_smoothing) + spread
        if not self.outputs:
            return make_loss(self.loss)(targets, logits[0], self.loss_activation)
        return tf.add_n(
            [
                output.weight * make_loss(output.loss or self.loss)(targets, of_output, self.loss_activation)
                for output, of_output in zip(self.outputs, logits, strict=True)
            ]
        )

    def decode(self, probabilities: np.ndarray, classes: tuple[str, ...], top: int) -> list[dict[str, Any]]:
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [{"label": classes[index], "probability": float(probabilities[index])} for index in best]
