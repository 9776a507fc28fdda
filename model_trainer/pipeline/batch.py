"""A batch, on its way from the pipeline to the step."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from model_trainer.pipeline.augment.augmentation import MIN_WEIGHT

__all__ = ["Batch"]


class Batch(NamedTuple):
    """What a step takes; every part may be a structure of tensors, as `tf.nest` understands it.

    Attributes:
        inputs: uint8 images `(batch, height, width, channels)`, not preprocessed yet.
        targets: what the examples are labelled with: int32 `(batch,)` classes; or float32 `(batch, num_classes)` of
            tags, probabilities and mixed images, NaN where unknown; or whatever else a task learns.
        weights: float32 `(batch,)`; 0 of an image that could not be read, whose pixels are 0 too. The weight of an
            example that is declared to weigh nothing is `MIN_WEIGHT`.
    """

    inputs: Any
    targets: Any
    weights: Any

    @property
    def declared_weights(self) -> tf.Tensor:
        """float32 `(batch,)`: the weights as they were declared; 0 of images that could not be read."""
        return tf.where(self.weights > MIN_WEIGHT, self.weights, 0.0)
