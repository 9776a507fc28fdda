"""The options of the training loop: epochs, batch size, learning rate, optimizer, schedule, precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model_trainer.config import Config
from model_trainer.pipeline.sampling import EachOnce, Sampling
from model_trainer.run.optimizers import Adam, Optimizer
from model_trainer.run.schedules import Cosine, Schedule
from model_trainer.user_code import Call, Live

__all__ = ["Divergence", "Training"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


class Divergence(Config):
    """What to do when training diverges. A step whose loss or gradients are not finite never changes the weights.

    After `bad_steps` of these or of loss spikes in a row, training rolls back to the last good checkpoint and skips the
    batches that led there.

    Fields:
        bad_steps: how many in a row cause a rollback.
        spike_factor: a loss is a spike if it is more than this many times the average loss of the steps before, or of
            the first 10 steps of the run if that is lower; averages below 0.7 count as 0.7. None tolerates any loss.
        rollbacks: maximum number of rollbacks; then training fails with a `DivergedError`.
        learning_rate_factor: multiplies the learning rate at each rollback.

    Example:
        >>> training = Training(divergence=Divergence(rollbacks=5, learning_rate_factor=0.3))
    """

    bad_steps: int = Field(3, ge=1)
    spike_factor: float | None = Field(10.0, gt=1)
    rollbacks: int = Field(3, ge=0)
    learning_rate_factor: float = Field(1.0, gt=0, le=1)


class Training(Config):
    """The options of the training loop.

    Fields:
        epochs: passes over the training images.
        batch_size: images per step, over all devices together.
        learning_rate: before the schedule's factor; optimizers have no learning rate of their own.
        optimizer: such as `AdamW()`, or any Keras optimizer.
        schedule: how the learning rate changes during the run.
        precision: Keras' dtype policy; "auto" follows `training.precision.choose_precision`.
        seed: of the initial weights, the order of images, augmentation and dropout.
        deterministic: whether the same run on the same machine gives identical weights; somewhat slower.
        sampling: which images an epoch draws: each one once, or each class with a chosen probability, such as
            `Equiprobable()`.
        accumulation_steps: gradient accumulation, for batches that do not fit into memory:
            `batch_size=32, accumulation_steps=4` computes 8 images at a time and updates once per 32.
        ema_decay: decay of an exponential moving average of the weights, such as 0.999, lower in the first steps; the
            averaged weights are validated and saved. None disables it.
        synchronized_batch_norm: whether batch normalization uses the images of all devices, or each device its own.
        loss_mean: divisor of a batch's summed weighted losses: the number of its "examples", as in Keras, or the sum
            of their "weights", as in earlier versions.
        divergence: what to do when the loss is not finite or spikes.
        max_bad_images, max_bad_fraction: the run stops if the unreadable images exceed both this number and this
            fraction of the data.

    Example:
        >>> training = Training(epochs=30, batch_size=256, accumulation_steps=4, learning_rate=1e-3)
        >>> training.schedule
        Cosine(warmup_epochs=0.0, final=0.0)
    """

    former_fields = {"max_bad_share": "max_bad_fraction"}

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
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
