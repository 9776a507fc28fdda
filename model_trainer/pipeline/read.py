"""Reads the encoded bytes of an example's image inside `tf.data`."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files, Images
from model_trainer.storage.read import MAX_FILE_BYTES

__all__ = ["make_fast_reader", "make_safe_reader"]

Reader = Callable[[tf.Tensor], tf.Tensor]  # from int64 (), the example's index, to string ()


def make_fast_reader(examples: Examples) -> Reader:
    """A function from an example's index to its bytes, which raises in the graph if they cannot be read.

    Files are read by TensorFlow, without Python; other sources by their own `read`.
    """
    rows = tf.constant(examples.rows)
    if not isinstance(examples.images, Files):
        return _python_reader(examples.images, rows)
    # Two tensors hold all paths: a tensor of strings would take 24 bytes more per path.
    data, starts = tf.constant(examples.images.paths.data), tf.constant(examples.images.paths.starts)
    too_large = tf.constant(np.flatnonzero(examples.num_bytes > MAX_FILE_BYTES))

    def read(index: tf.Tensor) -> tf.Tensor:
        row = rows[index]
        start = starts[row]
        is_small = tf.debugging.Assert(~tf.reduce_any(too_large == index), ["size"])
        with tf.control_dependencies([is_small]):
            return tf.io.read_file(tf.strings.substr(data, start, starts[row + 1] - start))

    return read


def make_safe_reader(examples: Examples) -> Reader:
    """The same as `make_fast_reader`, but it returns an empty string instead of raising."""
    rows = tf.constant(examples.rows)

    def read(row: np.int64) -> bytes:
        try:
            return examples.images.read(int(row))
        except OSError:
            return b""

    def read_at(index: tf.Tensor) -> tf.Tensor:
        data = tf.numpy_function(read, [rows[index]], tf.string)
        data.set_shape(())
        return data

    return read_at


def _python_reader(images: Images, rows: tf.Tensor) -> Reader:
    def read(row: np.int64) -> bytes:
        try:
            return images.read(int(row))
        except OSError as error:
            # TensorFlow would map an OSError to an error of its own by errno; any error leads to the exact path.
            raise ValueError(os.fspath(str(error))) from error

    def read_at(index: tf.Tensor) -> tf.Tensor:
        data = tf.numpy_function(read, [rows[index]], tf.string)
        data.set_shape(())
        return data

    return read_at
