"""The stateful parts of a training, whose states are saved in a checkpoint and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from model_trainer.errors import ModelFileError

__all__ = ["Attribute", "Stateful", "Variables"]


class Stateful(Protocol):
    """A part of a training that has a state."""

    def get_state(self) -> Any:
        """Returns a copy of the state, of numbers, strings, lists, dicts and arrays; later steps do not change it."""

    def set_state(self, state: Any) -> None:
        """Restores the result of `get_state`, including that of an older version."""


class Attribute:
    """A plain attribute of an object.

    Args:
        encode: converts the value for a checkpoint.
        decode: converts it back.
    """

    def __init__(
        self,
        owner: object,
        name: str,
        encode: Callable[[Any], Any] = lambda value: value,
        decode: Callable[[Any], Any] = lambda state: state,
    ) -> None:
        self._owner = owner
        self._name = name
        self._encode = encode
        self._decode = decode

    def get_state(self) -> Any:
        return self._encode(getattr(self._owner, self._name))

    def set_state(self, state: Any) -> None:
        setattr(self._owner, self._name, self._decode(state))


class Variables:
    """The variables of a network, an optimizer, or averages of them.

    They are matched by index and shape: default names of Keras depend on what else was built in the process.

    Args:
        kind: "network", "optimizer" and so on, for messages.
        find: returns the variables, each with a name; called each time, because the optimizer may be replaced.
        missing: returns the value, by index, of a variable that older versions did not store; None if it must exist.
    """

    def __init__(
        self,
        kind: str,
        find: Callable[[], Sequence[tuple[str, keras.Variable]]],
        missing: Callable[[int], np.ndarray | None] = lambda index: None,
    ) -> None:
        self._kind = kind
        self._find = find
        self._missing = missing

    def get_state(self) -> dict[str, np.ndarray]:
        return {f"{index}/{name}": np.array(variable) for index, (name, variable) in enumerate(self._find())}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        by_index = {int(name.split("/")[0]): array for name, array in state.items()}
        for index, (name, variable) in enumerate(self._find()):
            array = by_index.get(index)
            if array is None:
                array = self._missing(index)
            if array is None or not _fits_shape(array.shape, tuple(variable.shape)):
                expected = tuple(variable.shape)
                problem = "is missing" if array is None else f"should have shape {expected}, got {array.shape}"
                raise ModelFileError(
                    f"The checkpoint does not fit this network and optimizer: {self._kind}/{index}/{name} {problem}."
                )
            variable.assign(array.reshape(variable.shape))


def _fits_shape(stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether shapes are equal, or differ only as in ConvNeXt's layer scale, which its own layer stores as a vector."""
    return stored == expected or (len(stored) == 1 and expected == (1, 1, *stored, 1))
