"""What a run trains on."""

from __future__ import annotations

from typing import Literal

from model_trainer.config import Config

__all__ = ["Hardware"]


class Hardware(Config):
    """What a run trains on.

    Fields:
        devices: "auto" takes every GPU, or the CPU where there is none; a number takes that many.
        platform: "cpu" leaves GPUs alone, and splits the CPU into logical devices when `devices` is above 1.
    """

    devices: Literal["auto"] | int = "auto"
    platform: Literal["auto", "cpu", "gpu"] = "auto"
