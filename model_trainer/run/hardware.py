"""The devices that a run trains on."""

from __future__ import annotations

from typing import Literal

from model_trainer.config import Config

__all__ = ["Hardware"]


class Hardware(Config):
    """The devices that a run trains on.

    Fields:
        devices: "auto" uses every GPU, or the CPU if there is none; a number uses that many devices.
        platform: "cpu" ignores GPUs, and splits the CPU into logical devices if `devices` is above 1.

    Example:
        >>> Hardware(devices=2, platform="cpu")  # trains two replicas on one CPU
        Hardware(devices=2, platform='cpu')
    """

    devices: Literal["auto"] | int = "auto"
    platform: Literal["auto", "cpu", "gpu"] = "auto"
