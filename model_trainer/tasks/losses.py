"""Losses, one value for each example; reduction over the batch is the step's affair.

All take float32 `targets` and `logits` `(batch, num_classes)` and the head's activation, "softmax" or "sigmoid",
and return float32 `(batch,)`. From a sigmoid head the loss of an example is the mean over its classes, as in
`keras.losses.BinaryCrossentropy`.

A new loss is a new final class here; it can be declared, saved and set from the command line at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

from pydantic import Field

from model_trainer.config import Call, Choice, Live
from model_trainer.errors import ConfigError

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
    """A loss of ours."""

    @abstractmethod
    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """float32 `(batch,)`, where an image has exactly one class."""

    @abstractmethod
    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """float32 `(batch, num_classes)`: the term of each class, where each is a question of its own."""

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        """float32 `(batch,)`; see the top of this file for the arguments."""
        import tensorflow as tf

        if activation == "softmax":
            return self.of_softmax(targets, logits)
        return tf.reduce_mean(self.of_sigmoid(targets, logits), axis=-1)


@final
class CrossEntropy(Loss):
    """Cross-entropy between targets and predicted probabilities, in nats; from a sigmoid head the binary one."""

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def of_sigmoid(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)


@final
class Focal(Loss):
    """Cross-entropy that counts well-classified examples less: each term is weighted by (1 - p)^gamma.

    Fields:
        gamma: 0 gives plain cross-entropy; 2 is the paper's choice.
        alpha: weight of the positive class, 1 - alpha of the negative one, from a sigmoid head; from a softmax
            head one factor over all. None weights nothing.

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
        miss = targets * (1.0 - p) + (1.0 - targets) * p  # how far each probability is from its target
        terms = _power(miss, self.gamma) * tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if self.alpha is not None:
            terms *= targets * self.alpha + (1.0 - targets) * (1.0 - self.alpha)
        return terms


@final
class Asymmetric(Loss):
    """Focal loss that forgives more where a label is absent, for tags of which most images have few.

    Fields:
        gamma_positive, gamma_negative: focusing where the label is present, and where it is absent.
        margin: an absent label with a probability below it costs nothing.

    Source: https://arxiv.org/abs/2009.14119
    """

    gamma_positive: float = Field(0.0, ge=0)
    gamma_negative: float = Field(4.0, ge=0)
    margin: float = Field(0.05, ge=0, lt=1)

    def of_softmax(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        raise ConfigError("Asymmetric is a loss of tags; take MultiLabel, or activation='sigmoid'.", "task.loss")

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
    """Cross-entropy minus `strength` times the entropy of the prediction: discourages over-confidence.

    Right where a probability is 0: 0 log 0 counts as 0, in the value and in the gradient.

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

        # The entropy of a coin is its cross-entropy with itself, which is exact at p = 0 and p = 1.
        coins = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(logits), logits)
        return CrossEntropy().of_sigmoid(targets, logits) - self.strength * coins


def _power(base: tf.Tensor, exponent: float) -> tf.Tensor:
    """base^exponent for a base from 0 to 1, with a finite gradient at 0, where TensorFlow's is NaN for exponent 0."""
    import tensorflow as tf

    return tf.ones_like(base) if exponent == 0 else tf.maximum(base, 1e-12) ** exponent


def to_probabilities(logits: tf.Tensor, activation: Activation) -> tf.Tensor:
    """float32 probabilities from logits; rows sum to 1 after a softmax."""
    import tensorflow as tf

    return tf.nn.softmax(logits) if activation == "softmax" else tf.sigmoid(logits)


def make_loss(loss: Loss | Call | Live) -> LossFunction:
    """The function behind a declared loss: ours, or any of Keras or of the user that takes (targets, probabilities).

    Raises:
        ConfigError: what was given is no loss, or does not give one value for each example.
    """
    if isinstance(loss, Loss):
        return loss
    function = loss.make() if isinstance(loss, Call) else loss.value
    # A keras.losses.Loss reduces to one number when called; its `call` gives one for each example.
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
