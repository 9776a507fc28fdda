"""Losses as declared values. Each returns one value per example; the training step reduces them over the batch.

All take float32 `targets` and `logits` `(batch, num_classes)` and the head's activation, "softmax" or "sigmoid",
and return float32 `(batch,)`. With a sigmoid head the loss of an example is the mean over its classes, as in
`keras.losses.BinaryCrossentropy`.

To add a loss, add a final class here; it can then be declared, saved to JSON and set from the command line.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

from pydantic import Field

from model_trainer.config import Choice
from model_trainer.errors import ConfigError
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Activation",
    "Asymmetric",
    "CrossEntropy",
    "EntropyPenalty",
    "Focal",
    "Loss",
    "make_loss",
    "to_probabilities",
]

Activation = Literal["softmax", "sigmoid"]
LossFunction = Callable[["tf.Tensor", "tf.Tensor", Activation], "tf.Tensor"]


class Loss(Choice):
    """A built-in loss."""

    @abstractmethod
    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns float32 `(batch,)`: the loss of each example when an image has exactly one class."""

    @abstractmethod
    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns float32 `(batch, num_classes)`: the loss of each class, for independent binary labels."""

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        """Returns float32 `(batch,)`; for the arguments see the docstring of this module."""
        import tensorflow as tf

        if activation == "softmax":
            return self.of_softmax(targets, logits)
        return tf.reduce_mean(self.of_sigmoid(targets, logits), axis=-1)


@final
class CrossEntropy(Loss):
    """Cross-entropy between targets and predicted probabilities, in nats; binary cross-entropy with a sigmoid head.

    Example:
        >>> targets, logits = np.float32([[0, 1]]), np.float32([[0, 2]])
        >>> print(CrossEntropy()(targets, logits, "softmax").numpy().round(3))
        [0.127]
    """

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)


@final
class Focal(Loss):
    """Focal loss: cross-entropy with less weight on well-classified examples, a factor of (1 - p)^gamma.

    Fields:
        gamma: focusing parameter; 0 gives plain cross-entropy, 2 is the paper's choice.
        alpha: with a sigmoid head the weight of the positive class, 1 - alpha of the negative one; with a softmax
            head a factor of the whole loss. None applies no weight.

    Example:
        >>> targets, logits = np.float32([[0, 1]]), np.float32([[0, 2]])
        >>> print(Focal(gamma=2.0)(targets, logits, "softmax").numpy().round(3))
        [0.002]

    Source: https://arxiv.org/abs/1708.02002
    """

    gamma: float = Field(2.0, ge=0)
    alpha: float | None = Field(None, gt=0, lt=1)

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        log_p = tf.nn.log_softmax(logits)
        terms = -targets * _power(1.0 - tf.exp(log_p), self.gamma) * log_p
        return tf.reduce_sum(terms, axis=-1) * (1.0 if self.alpha is None else self.alpha)

    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        p = tf.sigmoid(logits)
        error = targets * (1.0 - p) + (1.0 - targets) * p  # distance of each probability from its target
        terms = _power(error, self.gamma) * tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if self.alpha is not None:
            terms *= targets * self.alpha + (1.0 - targets) * (1.0 - self.alpha)
        return terms


@final
class Asymmetric(Loss):
    """Asymmetric focal loss, which reduces the loss of easy absent labels more: for tags of which most images have few.

    Fields:
        gamma_positive, gamma_negative: focusing parameter where the label is present, and where it is absent.
        margin: absent labels with a probability below it have no loss.

    Example:
        >>> task = MultiLabel(loss=Asymmetric(gamma_negative=3.0))

    Source: https://arxiv.org/abs/2009.14119
    """

    gamma_positive: float = Field(0.0, ge=0)
    gamma_negative: float = Field(4.0, ge=0)
    margin: float = Field(0.05, ge=0, lt=1)

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        raise ConfigError("Asymmetric is a loss for tags; use task=MultiLabel(), or activation='sigmoid'.", "task.loss")

    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        p = tf.sigmoid(logits)
        shifted = tf.maximum(p - self.margin, 0.0)
        present = _power(1.0 - p, self.gamma_positive) * -tf.math.log_sigmoid(logits)
        if self.margin:
            absent = _power(shifted, self.gamma_negative) * -tf.math.log1p(-shifted)  # shifted stays below 1 - margin
        else:
            absent = _power(p, self.gamma_negative) * tf.nn.softplus(logits)
        return targets * present + (1.0 - targets) * absent


@final
class EntropyPenalty(Loss):
    """Confidence penalty: cross-entropy minus `strength` times the entropy of the prediction, against over-confidence.

    Value and gradient are exact at probabilities of 0, where 0 log 0 counts as 0.

    Example:
        >>> task = Classification(loss=EntropyPenalty(strength=0.1))

    Source: https://arxiv.org/abs/1701.06548
    """

    strength: float = Field(0.1, ge=0)

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        log_p = tf.nn.log_softmax(logits)
        entropy = -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), axis=-1)
        return CrossEntropy().of_softmax(targets, logits) - self.strength * entropy

    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        # A distribution's entropy is its cross-entropy with itself, which is exact at p = 0 and p = 1.
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(logits), logits)
        return CrossEntropy().of_sigmoid(targets, logits) - self.strength * entropies


def _power(base: tf.Tensor, exponent: float) -> tf.Tensor:
    """base^exponent for a base from 0 to 1, with a finite gradient at 0; TensorFlow's own is NaN for exponent 0."""
    import tensorflow as tf

    return tf.ones_like(base) if exponent == 0 else tf.maximum(base, 1e-12) ** exponent


def to_probabilities(logits: tf.Tensor, activation: Activation) -> tf.Tensor:
    """Returns float32 probabilities from logits; after a softmax each row sums to 1."""
    import tensorflow as tf

    return tf.nn.softmax(logits) if activation == "softmax" else tf.sigmoid(logits)


def make_loss(loss: Loss | Call | Live) -> LossFunction:
    """Returns the function of a declared loss: a built-in one, or one of Keras or the user.

    A loss of Keras or of the user takes `(targets, probabilities)`.

    Raises:
        ConfigError: `loss` is not a loss, or, when it is called, does not return one value per example.
    """
    if isinstance(loss, Loss):
        return loss
    function = loss.make() if isinstance(loss, Call) else loss.value
    # Calling a keras.losses.Loss reduces over the batch; its method `call` returns one value per example.
    per_example: Any = getattr(function, "call", function)
    if not callable(per_example):
        raise ConfigError(f"should be a loss such as CrossEntropy() or keras.losses.Huber(), got {function!r}.")

    def compute(targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        values = per_example(targets, to_probabilities(logits, activation))
        if values.shape.rank != 1:
            raise ConfigError(
                f"{function!r} should give one value for each example, shape (batch,), got shape {values.shape}."
            )
        return values

    return compute
