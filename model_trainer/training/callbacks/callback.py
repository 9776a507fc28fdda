"""The family of declared callbacks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from model_trainer.config import Call, Choice, Live
from model_trainer.errors import ConfigError

if TYPE_CHECKING:
    import keras

__all__ = ["Callback", "make_callbacks"]


class Callback(Choice):
    """A callback of ours, as a value."""

    @abstractmethod
    def make(self) -> keras.callbacks.Callback:
        """The Keras callback."""


def make_callbacks(declared: tuple[Callback | Call | Live, ...]) -> list[keras.callbacks.Callback]:
    """The Keras callbacks behind declared ones.

    Raises:
        ConfigError: one of them is no Keras callback.
    """
    import keras

    made = []
    for number, callback in enumerate(declared):
        live = callback.value if isinstance(callback, Live) else callback.make()
        if not isinstance(live, keras.callbacks.Callback):
            raise ConfigError(f"should be a keras.callbacks.Callback, got {live!r}.", f"callbacks.{number}")
        made.append(live)
    return made
