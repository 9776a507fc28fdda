"""How long, how fast and on what a run trains: declared values only, no TensorFlow is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model_trainer.config import Call, Config, Live
from model_trainer.pipeline.sampling import EachOnce, Sampling
from model_trainer.training.optimizers import Adam, Optimizer
from model_trainer.training.schedules import Cosine, Schedule

__all__ = ["Hardware", "Training"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


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
        max_bad_images, max_bad_share: more unreadable images than both stop the run.
    """

    epochs: int = Field(2, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    optimizer: Optimizer | Call | Live = Adam()
    schedule: Schedule = Cosine()
    precision: Precision = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    sampling: Sampling = EachOnce()
    max_bad_images: int = Field(10, ge=0)
    max_bad_share: float = Field(0.01, ge=0, le=1)


class Hardware(Config):
    """What a run trains on.

    Fields:
        devices: "auto" takes every GPU, or the CPU where there is none; a number takes that many.
        platform: "cpu" leaves GPUs alone, and splits the CPU into logical devices when `devices` is above 1.
    """

    devices: Literal["auto"] | int = "auto"
    platform: Literal["auto", "cpu", "gpu"] = "auto"
