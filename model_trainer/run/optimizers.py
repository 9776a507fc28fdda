"""Optimizers as values: options without a learning rate, which has its home in `training.learning_rate`.

`make_optimizer` turns one into a `keras.optimizers.Optimizer`. Names and defaults are Keras' own, so
`Adam()` here trains like `keras.optimizers.Adam(learning_rate)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, final

from pydantic import Field

from model_trainer.config import Call, Choice, Live
from model_trainer.errors import ConfigError

if TYPE_CHECKING:
    import keras

__all__ = ["LAMB", "SGD", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop", "exclude_from_decay", "make_optimizer"]


class Optimizer(Choice):
    """An optimizer of ours.

    Fields:
        weight_decay: decoupled, as in `keras.optimizers.Optimizer`; each step shrinks weights by rate * decay.
        weight_decay_on: "kernels", or "all": also biases and the parameters of normalisation, as Keras does it.
        clip_norm: largest norm of all gradients together.
        clip_value: largest absolute value in a gradient.
    """

    weight_decay: float | None = Field(None, ge=0)
    weight_decay_on: Literal["kernels", "all"] = "kernels"
    clip_norm: float | None = Field(None, gt=0)
    clip_value: float | None = Field(None, gt=0)

    @abstractmethod
    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        """The Keras optimizer; clipping is the step's, which sees the gradients of all devices together."""


@final
class SGD(Optimizer):
    """Stochastic gradient descent.

    Inverse-time decay, as keras-trainer had it, is a schedule: `SGD(momentum=0.9, nesterov=True)` with
    `InverseTime(decay=1e-6)`.
    """

    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.SGD(learning_rate, self.momentum, self.nesterov, weight_decay=self.weight_decay)


@final
class Adam(Optimizer):
    """Source: https://arxiv.org/abs/1412.6980"""

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
    """Adam with decoupled weight decay. Source: https://arxiv.org/abs/1711.05101"""

    weight_decay: float | None = Field(0.004, ge=0)
    beta_1: float = Field(0.9, ge=0, lt=1)
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        from model_trainer.run.fused_adam import FusedAdam

        return FusedAdam(learning_rate, self.beta_1, self.beta_2, self.epsilon, weight_decay=self.weight_decay)


@final
class RMSprop(Optimizer):
    """Divides the gradient by a running average of its size."""

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
    """The sign of a momentum; wants a rate 3 to 10 times smaller than Adam's. Source: https://arxiv.org/abs/2302.06675"""

    beta_1: float = Field(0.9, gt=0, lt=1)
    beta_2: float = Field(0.99, gt=0, lt=1)

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        import keras

        return keras.optimizers.Lion(learning_rate, self.beta_1, self.beta_2, weight_decay=self.weight_decay)


@final
class LAMB(Optimizer):
    """Adam's direction with a step as long as the layer's weights: for large batches.

    Weight decay is Keras' decoupled one; the paper has it inside the direction, before that gets its length.

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
    """The Keras optimizer behind a declared one, with `learning_rate`.

    Raises:
        ConfigError: the user's object is no Keras optimizer, or carries a schedule of its own.
    """
    import keras

    if isinstance(declared, Optimizer):
        return declared.make(learning_rate)
    made: Any = declared.make() if isinstance(declared, Call) else declared.value
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ConfigError(f"should be a Keras optimizer, got {made!r}.", "training.optimizer")
    # A fresh one of the same settings: a live object may have been built for another network.
    config = made.get_config()
    own = config["inner_optimizer"]["config"] if isinstance(made, keras.optimizers.LossScaleOptimizer) else config
    if isinstance(own.get("learning_rate"), dict):
        raise ConfigError("carries a learning-rate schedule; say it as `training.schedule`.", "training.optimizer")
    own["learning_rate"] = learning_rate
    return type(made).from_config(config)


def exclude_from_decay(
    optimizer: keras.optimizers.Optimizer, declared: Optimizer | Call | Live, variables: Iterable[keras.Variable]
) -> None:
    """Spares `variables` the weight decay, if `declared` wants that; a Keras optimizer of the user's decides itself.

    Args:
        optimizer: made from `declared`, and not built yet.
        variables: of the network that are no kernels.
    """
    if isinstance(declared, Optimizer) and declared.weight_decay_on == "kernels":
        optimizer.exclude_from_weight_decay(list(variables))
