"""LAMB for Keras, which has none."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["KerasLAMB"]


class KerasLAMB(keras.optimizers.Optimizer):
    """Layer-wise adaptive moments: Adam's direction, scaled to the norm of the weights it changes.

    Vectors (biases, batch normalisation) are not decayed, as in the paper's experiments.

    Args:
        decay: added to the direction as decay * weights, before its length is set.

    Source: https://arxiv.org/abs/1904.00962, algorithm 2
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        decay: float = 0.0,
        name: str = "lamb",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.decay = decay

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._first, self._second = self.add_optimizer_variables(variables, ["first_moment", "second_moment"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        first = self._first[self._get_variable_index(variable)]
        second = self._second[self._get_variable_index(variable)]
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        unbiased_first = first / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        unbiased_second = second / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        direction = unbiased_first / (ops.sqrt(unbiased_second) + self.epsilon)
        if self.decay and len(variable.shape) > 1:
            direction += self.decay * variable
        length, weight = _norm(direction), _norm(variable)
        usable = ops.logical_and(length > 0, weight > 0)
        trust = ops.where(usable, weight / ops.where(usable, length, 1.0), 1.0)
        self.assign_sub(variable, rate * trust * direction)

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "decay": self.decay}
        return {**super().get_config(), **own}


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values)))  # ops.norm takes no kernel of four dimensions
