"""Early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from pydantic import Field

from model_trainer.training.callbacks.callback import Callback

if TYPE_CHECKING:
    import keras

__all__ = ["EarlyStopping"]


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
