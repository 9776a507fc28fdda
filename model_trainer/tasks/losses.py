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

__all__ = ["Activation", "CrossEntropy", "EntropyPenalty", "Focal", "Loss", "make_loss", "to_probabilities"]

Activation = Literal["softmax", "sigmoid"]
LossFunction = Callable[["tf.Tensor", "tf.Tensor", Activation], "tf.Tensor"]


class Loss(Choice):
    """A loss of ours."""

    @abstractmethod
    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        """float32 `(batch,)`; see the top of this file for the arguments."""


@final
class CrossEntropy(Loss):
    """Cross-entropy between targets and predicted probabilities, in nats."""

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        import tensorflow as tf

        if activation == "softmax":
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


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

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        import tensorflow as tf

        if activation == "softmax":
            log_p = tf.nn.log_softmax(logits)
            terms = -targets * (1.0 - tf.exp(log_p)) ** self.gamma * log_p
            return tf.reduce_sum(terms, axis=-1) * (1.0 if self.alpha is None else self.alpha)
        p = tf.sigmoid(logits)
        miss = targets * (1.0 - p) + (1.0 - targets) * p  # how far each probability is from its target
        terms = miss**self.gamma * tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if self.alpha is not None:
            terms *= targets * self.alpha + (1.0 - targets) * (1.0 - self.alpha)
        return tf.reduce_mean(terms, axis=-1)


@final
class EntropyPenalty(Loss):
    """Cross-entropy minus `strength` times the entropy of the prediction: discourages over-confidence.

    Right where a probability is 0: 0 log 0 counts as 0, in the value and in the gradient.

    Source: https://arxiv.org/abs/1701.06548
    """

    strength: float = Field(0.1, ge=0)

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, activation: Activation) -> tf.Tensor:
        import tensorflow as tf

        cross_entropy = CrossEntropy()(targets, logits, activation)
        if activation == "softmax":
            log_p = tf.nn.log_softmax(logits)
            entropy = -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), axis=-1)
        else:
            # The entropy of a coin is its cross-entropy with itself, which is exact at p = 0 and p = 1.
            coins = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(logits), logits)
            entropy = tf.reduce_mean(coins, axis=-1)
        return cross_entropy - self.strength * entropy


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
