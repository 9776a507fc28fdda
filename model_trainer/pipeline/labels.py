"""Looks up the label of an example inside `tf.data`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows

__all__ = ["make_label_reader"]


def make_label_reader(examples: Examples) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from an example's index to its label; index -1, which is padding, has the first example's label.

    The label is int32 `()`, or for `LabelRows` float32 `(num_classes,)` with NaN for unknown.
    """
    labels, num_classes = examples.labels, len(examples.classes)
    if not isinstance(labels, LabelRows):
        class_ids = tf.constant(labels)
        return lambda index: class_ids[tf.maximum(index, 0)]
    starts, classes, values = tf.constant(labels.starts), tf.constant(labels.classes), tf.constant(labels.values)

    def read(index: tf.Tensor) -> tf.Tensor:
        row = tf.maximum(index, 0)
        start, stop = starts[row], starts[row + 1]
        return tf.scatter_nd(classes[start:stop, None], values[start:stop], [num_classes])

    return read
