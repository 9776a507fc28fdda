"""Callbacks as values: ours, and what becomes of those of the user."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, final

from pydantic import Field

from model_trainer.config import Call, Choice, Live
from model_trainer.errors import ConfigError

if TYPE_CHECKING:
    import keras

__all__ = ["Callback", "EarlyStopping", "make_callbacks"]


class Callback(Choice):
    """A callback of ours, as a value."""

    @abstractmethod
    def make(self) -> keras.callbacks.Callback:
        """The Keras callback."""


@final
class EarlyStopping(Callback):
    """Ends the run when `monitor` has not improved by `min_delta` for `patience` epochs.

    Fields:
        mode: whether `monitor` should fall ("min") or rise ("max"); "auto" rises only for what is no loss.
        restore_best: gives `final_model.hdf5` the weights of the best epoch.
    """

    monitor: str = "val_loss"
    patience: int = Field(5, ge=1)
    min_delta: float = Field(0.0, ge=0)
    mode: Literal["auto", "min", "max"] = "auto"
    restore_best: bool = False

    def make(self) -> keras.callbacks.Callback:
        import keras

        return keras.callbacks.EarlyStopping(
            monitor=self.monitor,
            min_delta=self.min_delta,
            patience=self.patience,
            mode=self.mode,  # of "auto" `decide_directions` makes one of the others
            restore_best_weights=self.restore_best,
        )


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
