"""The Keras network as a TensorFlow graph in which the weights are constants.

TensorFlow's graph optimizer then folds operations on constants: batch normalization becomes part of the convolution
before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.framework.convert_to_constants import (  # it has no public name
    convert_variables_to_constants_v2,
)

from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.network.own_model import stage_own_model
from model_trainer.network.training_copy import make_training_copy

__all__ = ["KerasGraph", "compute_function"]


@final
class KerasGraph:
    """Computes a trained model with TensorFlow.

    The weights are copied: later changes to the model change nothing.

    Args:
        trained: the model.
        precision: "float32", or "bfloat16" or "float16" for a network rebuilt with Keras' mixed policy, whose last
            layer stays float32.
    """

    name = "keras"

    def __init__(self, trained: TrainedModel, precision: str = "float32") -> None:
        self.precision = precision
        function = compute_function(trained, precision)
        self._function = function  # keeps Python functions alive that the graph calls, such as the user's preprocessing
        try:
            self._frozen = _with_constant_weights(function)
        except Exception as error:  # noqa: BLE001  # such as more than 2 GB of weights, or lookup tables
            logging.info("The weights stay variables, which is slower: %s", str(error).split("\n")[0][:200])
            self._frozen = function

    def __call__(self, images: np.ndarray) -> Any:
        return tf.nest.map_structure(lambda output: output.numpy(), self._frozen(tf.convert_to_tensor(images)))

    def unfolded(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs without constant folding; they differ from those of a call by float32 rounding."""
        return [output.numpy() for output in tf.nest.flatten(self._function(tf.convert_to_tensor(images)))]


def _with_constant_weights(function: Any) -> Any:
    frozen = convert_variables_to_constants_v2(function)

    # In a direct call of `frozen`, TensorFlow formats the images for the message of an error that it then ignores,
    # which takes 0.5 ms, in which no other thread runs Python.
    def compute(images: tf.Tensor) -> Any:
        return tf.nest.pack_sequence_as(function.structured_outputs, tf.nest.flatten(frozen(images)))

    signature = tf.TensorSpec(function.inputs[0].shape, tf.uint8)
    return tf.function(compute, autograph=False, input_signature=[signature]).get_concrete_function()


def compute_function(trained: TrainedModel, precision: str = "float32") -> Any:
    """Returns the concrete function from uint8 `(batch, height, width, channels)` to the outputs of the network."""
    network: Callable[..., Any] = trained.model
    if precision != "float32":
        staged = stage_own_model(trained.model, None, trained.spec, trained.task, len(trained.classes), trains=False)
        network = make_training_copy(staged, f"mixed_{precision}", seed=0).model

    def compute(images: tf.Tensor) -> Any:
        return network(trained.spec.preprocess(images), training=False)

    signature = tf.TensorSpec([None, *trained.spec.target_size], tf.uint8)
    return tf.function(compute, autograph=False, input_signature=[signature]).get_concrete_function()
