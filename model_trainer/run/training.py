"""How long, how fast and how exactly a run trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model_trainer.config import Call, Config, Live
from model_trainer.pipeline.sampling import EachOnce, Sampling
from model_trainer.run.optimizers import Adam, Optimizer
from model_trainer.run.schedules import Cosine, Schedule

__all__ = ["Divergence", "Training"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


class Divergence(Config):
    """What happens when training goes wrong. A step whose loss or gradients are not finite changes nothing, always.

    After `bad_steps` in a row of these, or of spikes of the loss, training goes back to the last good checkpoint and
    leaves out the batches that led there.

    Fields:
        bad_steps: how many in a row are borne.
        spike_factor: a step's loss is a spike when it is more than this many times the average of the steps before it,
            or of the first 10 of the run where that is less; below 0.7 an average counts as 0.7. None bears any.
        rollbacks: how often training goes back; then it ends with a `DivergedError`.
        learning_rate_factor: multiplies the learning rate each time.
    """

    bad_steps: int = Field(3, ge=1)
    spike_factor: float | None = Field(10.0, gt=1)
    rollbacks: int = Field(3, ge=0)
    learning_rate_factor: float = Field(1.0, gt=0, le=1)


class Training(Config):
    """One run's training.

    Fields:
        epochs: passes over the training images.
        batch_size: images per step, over all devices together.
        learning_rate: its one home; optimizers carry none and schedules multiply it.
        precision: in which numbers the network computes; "auto" follows `training.precision.choose_precision`.
        seed: of weights, order, augmentation and dropout.
        deterministic: the same bits from the same run on the same machine, somewhat slower.
        sampling: which images an epoch shows: each once, or each class by a chosen share, such as `Equiprobable()`.
        accumulation_steps: a batch is computed in that many parts, one after another, where it does not fit into
            memory at once: `batch_size=32, accumulation_steps=4` takes 8 images at a time and updates once in 32.
        ema_decay: what stays of the exponential moving average of the weights in each step, such as 0.999; the average
            is what is validated and saved. It is less in the first steps. None keeps no average.
        synchronized_batch_norm: batch normalisation over the images of all devices together, not of each alone.
        loss_mean: what the sum of weighted losses in a batch is divided by: the number of its "examples", as in Keras;
            or the sum of their "weights", as in earlier versions.
        divergence: what happens when the loss is no longer a number, or shoots up.
        max_bad_images, max_bad_share: more unreadable images than both stop the run.
    """

    epochs: int = Field(2, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0, allow_inf_nan=False)
    optimizer: Optimizer | Call | Live = Adam()
    schedule: Schedule = Cosine()
    precision: Precision = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    sampling: Sampling = EachOnce()
    accumulation_steps: int = Field(1, ge=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    synchronized_batch_norm: bool = False
    loss_mean: Literal["examples", "weights"] = "examples"
    divergence: Divergence = Divergence()
    max_bad_images: int = Field(10, ge=0)
    max_bad_share: float = Field(0.01, ge=0, le=1)
