"""A batch of images, targets and weights, as the pipeline yields it and the training step takes it."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from model_trainer.pipeline.augment.augmentation import MIN_WEIGHT

__all__ = ["Batch"]


class Batch(NamedTuple):
    """The input of a training or evaluation step; each field may be a nested structure of tensors, as in `tf.nest`.

    Attributes:
        inputs: uint8 images `(batch, height, width, channels)`, not preprocessed yet.
        targets: the labels: int32 `(batch,)` classes; or float32 `(batch, num_classes)` for tags, probabilities and
            mixed images, NaN if unknown; or whatever else a task learns.
        weights: float32 `(batch,)`; 0 for an image that could not be read, whose pixels are 0 too. An example whose
            declared weight is 0 has `MIN_WEIGHT`.
    """

    inputs: Any
    targets: Any
    weights: Any

    @property
    def declared_weights(self) -> tf.Tensor:
        """float32 `(batch,)`: the weights as declared in the data; 0 for images that could not be read."""
        return tf.where(self.weights > MIN_WEIGHT, self.weights, 0.0)
