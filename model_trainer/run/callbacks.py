"""Callbacks as declared values, and the Keras callbacks that are made from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, final

from pydantic import Field

from model_trainer.config import Choice
from model_trainer.errors import ConfigError
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import keras

__all__ = ["Callback", "EarlyStopping", "make_callbacks"]


class Callback(Choice):
    """A built-in callback, as a declared value."""

    @abstractmethod
    def make(self) -> keras.callbacks.Callback:
        """Returns the Keras callback."""


@final
class EarlyStopping(Callback):
    """Stops training when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    Fields:
        monitor: a column of `history.csv`, such as "val_loss" or "val_accuracy".
        mode: whether `monitor` should fall ("min") or rise ("max"); "auto" decides by its name: losses should fall,
            metrics rise.
        restore_best: whether `final_model.hdf5` gets the weights of the best epoch.

    Example:
        >>> run = Run(
        ...     spec=ModelSpec.named("vgg19"),
        ...     train_data=ImageFolder("data/train"),
        ...     val_data=ImageFolder("data/val"),
        ...     callbacks=(EarlyStopping(monitor="val_accuracy", patience=3),),
        ... )
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
            mode=self.mode,  # `decide_directions` replaces "auto" later
            restore_best_weights=self.restore_best,
        )


def make_callbacks(declared: tuple[Callback | Call | Live, ...]) -> list[keras.callbacks.Callback]:
    """Makes the Keras callbacks from the declared ones, in the same order.

    Raises:
        ConfigError: one of them is not a Keras callback, or needs a package that is not installed.
    """
    import keras

    callbacks = []
    for index, value in enumerate(declared):
        try:
            callback = value.value if isinstance(value, Live) else value.make()
        except ConfigError as error:
            raise error.under(f"callbacks.{index}") from error
        if not isinstance(callback, keras.callbacks.Callback):
            raise ConfigError(f"should be a keras.callbacks.Callback, got {callback!r}.", f"callbacks.{index}")
        callbacks.append(callback)
    return callbacks
