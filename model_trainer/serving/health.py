"""Whether a model can answer: after a failure it computes a black image again to find out."""

from __future__ import annotations

import asyncio

import numpy as np

from model_trainer.serving.answers import InferenceFailed, NotReady
from model_trainer.serving.batcher import Batcher

__all__ = ["is_able_to_answer"]

PROBE_SECONDS = 1.5  # SageMaker waits 2 seconds for an answer


async def is_able_to_answer(batcher: Batcher, black: np.ndarray, max_batch_seconds: float) -> bool:
    """Whether the network computes batches, without an error and in time.

    Args:
        batcher: computes the images.
        black: a black image, uint8 `(height, width, channels)`, with which it is tried after a failure.
        max_batch_seconds: a batch that takes longer is considered hung.
    """
    if batcher.batch_seconds > max_batch_seconds:
        return False
    if not batcher.has_failed:
        return True
    try:
        job = batcher.submit([black], is_urgent=True)
    except NotReady:
        return False
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await job.future
    except (TimeoutError, InferenceFailed):
        return False
    finally:
        batcher.abandon(job)
    return True
