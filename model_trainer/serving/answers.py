"""What the service returns to the HTTP interface: probabilities, or the exceptions that say why there are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_trainer.model_files.trained_model import TrainedModel

__all__ = ["BadImage", "Busy", "InferenceFailed", "NotReady", "Results", "TooSlow"]


class NotReady(Exception):
    """The model is being loaded, or the server is stopping."""


class Busy(Exception):
    """Too many images are in progress; the client may retry.

    Args:
        retry_after_seconds: how long the client should wait before it retries.
    """

    def __init__(self, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("too many images are being computed")


class TooSlow(Exception):
    """The answer took longer than `request_seconds`."""


class InferenceFailed(Exception):
    """The network raised an error or returned values that are not finite; the log has the reason."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read.

    Attributes:
        reason: for the client, such as "is not an image".
    """

    reason: str


@dataclass(frozen=True, eq=False)
class Results:
    """The results of the images of one request, in their order.

    Attributes:
        model: the model that computed them; with `--reload` the next request may be answered by another.
        rows: for each image float32 `(num_classes,)`, finite, or why it cannot be read.
        queue_seconds: the longest time that one of them waited for its batch.
        compute_seconds: the time of the slowest batch.
    """

    model: TrainedModel
    rows: list[np.ndarray | BadImage]
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
