"""Optimizers as declared values, without a learning rate: that is `training.learning_rate`.

`make_optimizer` turns one into a `keras.optimizers.Optimizer`. Names and defaults are those of Keras, so
`Adam()` here trains like `keras.optimizers.Adam(learning_rate)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, final

from pydantic import Field

from model_trainer.config import Choice
from model_trainer.errors import ConfigError
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import keras

__all__ = ["LAMB", "SGD", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop", "exclude_from_decay", "make_optimizer"]


class Optimizer(Choice):
    """A built-in optimizer, as a declared value.

    Fields:
        weight_decay: decoupled, as in `keras.optimizers.Optimizer`: each step multiplies the weights by
            1 - learning_rate * weight_decay.
        weight_decay_on: "kernels", or "all", which includes biases and the parameters of normalization, as in Keras.
        clip_norm: maximum global norm of the gradients (L2, over all variables together).
        clip_value: maximum absolute value of a gradient's elements.
    """

    weight_decay: float | None = Field(None, ge=0)
    weight_decay_on: Literal["kernels", "all"] = "kernels"
    clip_norm: float | None = Field(None, gt=0)
    clip_value: float | None = Field(None, gt=0)

    @abstractmethod
    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        """Returns the Keras optimizer. It does not clip: the step does, on the gradients summed over all devices."""


@final
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    The `decay` argument of keras-trainer's SGD is a schedule here: `InverseTime(decay=1e-6)`.

    Example:
        >>> training = Training(
        ...     learning_rate=0.01,
        ...     optimizer=SGD(momentum=0.9, nesterov=True),
        ...     schedule=InverseTime(decay=1e-6),
        ... )
    """

    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.SGD(learning_rate, self.momentum, self.nesterov, weight_decay=self.weight_decay)


@final
class Adam(Optimizer):
    """Adam: a step size for each weight from moving averages of its gradient and of the gradient's square.

    Example:
        >>> training = Training(learning_rate=1e-3, optimizer=Adam(clip_norm=1.0))

    Source: https://arxiv.org/abs/1412.6980
    """

    beta_1: float = Field(0.9, ge=0, lt=1)
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)
    amsgrad: bool = False

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        from model_trainer.run.fused_adam import FusedAdam

        return FusedAdam(
            learning_rate, self.beta_1, self.beta_2, self.epsilon, self.amsgrad, weight_decay=self.weight_decay
        )


@final
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Example:
        >>> training = Training(learning_rate=1e-3, optimizer=AdamW(weight_decay=0.05))
        >>> training.changed("optimizer.weight_decay", 0.1).optimizer.weight_decay
        0.1

    Source: https://arxiv.org/abs/1711.05101
    """

    weight_decay: float | None = Field(0.004, ge=0)
    beta_1: float = Field(0.9, ge=0, lt=1)
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        from model_trainer.run.fused_adam import FusedAdam

        return FusedAdam(learning_rate, self.beta_1, self.beta_2, self.epsilon, weight_decay=self.weight_decay)


@final
class RMSprop(Optimizer):
    """Divides the gradient by the root of a moving average of its square.

    Example:
        >>> training = Training(learning_rate=1e-3, optimizer=RMSprop(rho=0.9, momentum=0.9))
    """

    rho: float = Field(0.9, ge=0, lt=1)
    momentum: float = Field(0.0, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)
    centered: bool = False

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.RMSprop(
            learning_rate, self.rho, self.momentum, self.epsilon, self.centered, weight_decay=self.weight_decay
        )


@final
class Lion(Optimizer):
    """Updates with the sign of the momentum; needs a learning rate 3 to 10 times lower than Adam's.

    Example:
        >>> training = Training(learning_rate=1e-4, optimizer=Lion(weight_decay=0.1))

    Source: https://arxiv.org/abs/2302.06675
    """

    beta_1: float = Field(0.9, gt=0, lt=1)
    beta_2: float = Field(0.99, gt=0, lt=1)

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.Lion(learning_rate, self.beta_1, self.beta_2, weight_decay=self.weight_decay)


@final
class LAMB(Optimizer):
    """Adam with each layer's update scaled to the norm of its weights, for large batches.

    Weight decay is decoupled, as in Keras; the paper adds it to the update before the update is scaled.

    Example:
        >>> training = Training(batch_size=4096, learning_rate=0.01, optimizer=LAMB(), schedule=Cosine(warmup_epochs=5))

    Source: https://arxiv.org/abs/1904.00962
    """

    beta_1: float = Field(0.9, ge=0, lt=1)
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-6, gt=0)

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.Lamb(
            learning_rate, self.beta_1, self.beta_2, self.epsilon, weight_decay=self.weight_decay
        )


def make_optimizer(declared: Optimizer | Call | Live, learning_rate: float) -> keras.optimizers.Optimizer:
    """Makes the Keras optimizer from a declared one, with this learning rate.

    Raises:
        ConfigError: the user's object is not a Keras optimizer, or has a learning-rate schedule of its own.
    """
    import keras

    if isinstance(declared, Optimizer):
        return declared.make(learning_rate)
    optimizer: Any = declared.make() if isinstance(declared, Call) else declared.value
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ConfigError(f"should be a Keras optimizer, got {optimizer!r}.", "training.optimizer")
    # A new one with the same settings: a live object may have been built for another network.
    config = optimizer.get_config()
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner_config = config["inner_optimizer"]["config"] if is_scaled else config
    if isinstance(inner_config.get("learning_rate"), dict):
        raise ConfigError(
            "has a learning-rate schedule of its own; declare it as `training.schedule`.", "training.optimizer"
        )
    inner_config["learning_rate"] = learning_rate
    return type(optimizer).from_config(config)


def exclude_from_decay(
    optimizer: keras.optimizers.Optimizer, declared: Optimizer | Call | Live, variables: Iterable[keras.Variable]
) -> None:
    """Excludes `variables` from weight decay if `declared` has it on kernels only.

    The user's own Keras optimizer is left as it is.

    Args:
        optimizer: made from `declared`, and not built yet.
        variables: those of the network that are not kernels.
    """
    if isinstance(declared, Optimizer) and declared.weight_decay_on == "kernels":
        optimizer.exclude_from_weight_decay(list(variables))
