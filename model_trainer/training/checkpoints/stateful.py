"""What a checkpoint is made of: parts of a training that can say how they stand, and go on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from model_trainer.errors import ModelFileError

__all__ = ["Attribute", "Stateful", "Variables"]


class Stateful(Protocol):
    """A part of a training on which the rest of it depends."""

    def get_state(self) -> Any:
        """Numbers, text, lists, dicts and arrays; none of it changes when training goes on."""

    def set_state(self, state: Any) -> None:
        """Goes on from what `get_state` gave, also in an older version."""


class Attribute:
    """A plain value that an object has.

    Args:
        kept: what a checkpoint keeps of the value.
        restored: the value, from that.
    """

    def __init__(
        self,
        owner: object,
        name: str,
        kept: Callable[[Any], Any] = lambda value: value,
        restored: Callable[[Any], Any] = lambda state: state,
    ) -> None:
        self._owner = owner
        self._name = name
        self._kept = kept
        self._restored = restored

    def get_state(self) -> Any:
        return self._kept(getattr(self._owner, self._name))

    def set_state(self, state: Any) -> None:
        setattr(self._owner, self._name, self._restored(state))


class Variables:
    """The variables of a network, an optimizer, or averages of them.

    They are matched by position and shape: names of Keras' own making depend on what else was built in the process.

    Args:
        kind: what they are of, for messages.
        find: gives them, each with a name; asked anew each time, because an optimizer may take another's place.
        missing: what a variable is that older versions did not keep, by position; None where there has to be a value.
    """

    def __init__(
        self,
        kind: str,
        find: Callable[[], Sequence[tuple[str, keras.Variable]]],
        missing: Callable[[int], np.ndarray | None] = lambda number: None,
    ) -> None:
        self._kind = kind
        self._find = find
        self._missing = missing

    def get_state(self) -> dict[str, np.ndarray]:
        return {f"{number}/{name}": np.array(each) for number, (name, each) in enumerate(self._find())}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        by_number = {int(name.split("/")[0]): array for name, array in state.items()}
        for number, (name, variable) in enumerate(self._find()):
            array = by_number.get(number)
            if array is None:
                array = self._missing(number)
            if array is None or not _is_same_shape(array.shape, tuple(variable.shape)):
                found = "is missing" if array is None else f"has the shape {array.shape}, not {tuple(variable.shape)}"
                raise ModelFileError(
                    f"The checkpoint does not fit this network and optimizer: {self._kind}/{number}/{name} {found}."
                )
            variable.assign(array.reshape(variable.shape))


def _is_same_shape(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Also for a factor of each channel in ConvNeXt, whose own layer holds a row."""
    return stored == wanted or (len(stored) == 1 and wanted == (1, 1, *stored, 1))
