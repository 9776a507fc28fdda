"""Reads the encoded bytes of an example's image inside `tf.data`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from model_trainer.errors import StorageError
from model_trainer.pipeline.read_ahead import ANNOUNCED_TOGETHER, ReadAhead, num_ahead
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files
from model_trainer.storage.read import MAX_FILE_BYTES

__all__ = ["Readers", "make_readers"]

Reader = Callable[[tf.Tensor], tf.Tensor]  # from int64 (), the example's index, to string ()
OnFailure = Callable[[StorageError], None]


@dataclass(frozen=True)
class Readers:
    """Two functions from an example's index to its encoded image, and one that reads ahead.

    Attributes:
        fast: fails the element of the dataset if the image cannot be read.
        safe: returns b"" for an image that cannot be read. It fails only if the store refuses every request, or does
            not answer, because then the image may be good.
        ahead: see `map_with_fallback`; None if reading an image takes no request to a store.
    """

    fast: Reader
    safe: Reader
    ahead: Callable[[tf.data.Dataset, Reader], tf.data.Dataset] | None = None


def make_readers(examples: Examples, on_failure: OnFailure) -> Readers:
    """The readers of the images of `examples`.

    Files are read by TensorFlow, without Python; other sources by their own `read`.

    Args:
        examples: the table of examples.
        on_failure: receives the error of a store that refuses every request or does not answer, before it is raised.
    """
    rows = tf.constant(examples.rows)
    if isinstance(examples.images, Files):
        return Readers(_file_reader(examples, rows), _safe_reader(examples.images.read, rows, on_failure))
    if not examples.images.takes_requests():
        read = examples.images.read
        return Readers(_python_reader(read, rows, on_failure), _safe_reader(read, rows, on_failure))
    count = num_ahead(examples)
    images = ReadAhead(examples.images, count)

    def announce(indices: np.ndarray) -> np.ndarray:
        images.announce(examples.rows[indices[indices >= 0]])
        return indices

    def ahead(numbers: tf.data.Dataset, index_of: Reader) -> tf.data.Dataset:
        announcements = numbers.map(_without_autograph(lambda number: (number, index_of(number)))).batch(
            ANNOUNCED_TOGETHER
        )

        def announced(numbers: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([tf.numpy_function(announce, [indices], tf.int64)]):
                return tf.identity(numbers)

        return announcements.map(_without_autograph(announced)).prefetch(max(1, count // ANNOUNCED_TOGETHER)).unbatch()

    return Readers(_python_reader(images.read, rows, on_failure), _safe_reader(images.read, rows, on_failure), ahead)


# AutoGraph would parse the source of every function, which takes longer than tracing it.
_without_autograph = tf.autograph.experimental.do_not_convert


def _file_reader(examples: Examples, rows: tf.Tensor) -> Reader:
    assert isinstance(examples.images, Files)
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


def _safe_reader(read: Callable[[int], bytes], rows: tf.Tensor, on_failure: OnFailure) -> Reader:
    def read_safely(row: np.int64) -> bytes:
        try:
            return read(int(row))
        except StorageError as error:
            on_failure(error)
            raise ValueError(str(error)) from error
        except OSError:
            return b""

    return _in_graph(read_safely, rows)


def _python_reader(read: Callable[[int], bytes], rows: tf.Tensor, on_failure: OnFailure) -> Reader:
    def read_or_raise(row: np.int64) -> bytes:
        try:
            return read(int(row))
        except OSError as error:
            if isinstance(error, StorageError):
                on_failure(error)
            # TensorFlow would map an OSError to one of its own by errno. `map_with_fallback` handles any error alike.
            raise ValueError(str(error)) from error

    return _in_graph(read_or_raise, rows)


def _in_graph(read: Callable[[np.int64], bytes], rows: tf.Tensor) -> Reader:
    def read_at(index: tf.Tensor) -> tf.Tensor:
        data = tf.numpy_function(read, [rows[index]], tf.string)
        data.set_shape(())
        return data

    return read_at
