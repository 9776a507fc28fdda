"""The form of a network that trains: another precision, logits as outputs, randomness that is a function.

The plain float32 network is what gets saved. Its copy shares nothing with it but the names and, by
`copy_weights`, the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from model_trainer.tasks.losses import Activation

__all__ = ["StepSeeds", "TrainingCopy", "copy_weights", "make_training_copy"]


@dataclass
class StepSeeds:
    """Where all random layers of a model take their seed from: (seed, step, part, replica, layer).

    `step`, and `part` where a batch is computed in parts, are set by the step function before the model is called.
    """

    seed: int
    step: tf.Tensor = field(default_factory=lambda: tf.constant(0, tf.int64))
    part: int = 0

    def of_layer(self, number: int, ordered: bool = True) -> tf.Tensor:
        """int32 `(2,)`, for the `number`th random layer; `ordered` is there because Keras passes it."""
        fold_in = tf.random.experimental.stateless_fold_in
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        seed = fold_in(tf.constant([self.seed, 0x6472 + self.part], tf.int32), self.step)
        return fold_in(fold_in(seed, tf.cast(replica, tf.int32)), number)


@dataclass(frozen=True)
class TrainingCopy:
    """A model that trains.

    Attributes:
        model: the copy; same inputs and outputs as the plain network.
        logits: images to a list of float32 `(batch, num_classes)` logits, one for each output.
        seeds: of its random layers.
        statistics: the variables that a forward pass itself changes, such as moving averages of batch normalisation.
    """

    model: keras.Model
    logits: Callable[..., list[tf.Tensor]]
    seeds: StepSeeds
    statistics: list[keras.Variable]


def make_training_copy(
    plain: keras.Model, precision: str, seed: int, activation: Activation, synchronized_batch_norm: bool = False
) -> TrainingCopy:
    """Copies `plain` with every layer computing in `precision`; the last layers stay float32.

    Args:
        plain: a functional float32 model.
        precision: float32, mixed_bfloat16 or mixed_float16.
        seed: of dropout and its kin.
        activation: of the task, to get logits back from a model of which only probabilities can be had.
        synchronized_batch_norm: whether batch normalisation averages over all devices.
    """
    last = {layer.name for layer in _last_layers(plain)}
    seeds = StepSeeds(seed)
    random_layers: list[str] = []

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        # A bare operation, such as `keras.ops.log` in the user's own model, computes in what it is given.
        if layer.name not in last and isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = precision
        if isinstance(layer, keras.layers.BatchNormalization) and "synchronized" in config:
            config["synchronized"] = synchronized_batch_norm
        new = type(layer).from_config(config)
        if isinstance(getattr(new, "seed_generator", None), keras.random.SeedGenerator):
            # Keras' own `next` keeps state, and draws the same mask on every replica.
            new.seed_generator.next = functools.partial(seeds.of_layer, len(random_layers))
            random_layers.append(new.name)
        return new

    copy = keras.models.clone_model(plain, clone_function=clone)
    copy_weights(plain, copy)
    return TrainingCopy(copy, _logits_of(copy, activation), seeds, list(copy.non_trainable_variables))


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Gives `target` the weights of `source`, an equal network in another precision."""
    for old, new in zip(source.weights, target.weights, strict=True):
        new.assign(old)


def _last_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers whose precision decides the loss: those that give the outputs, and logits below an activation."""
    layers = []
    for output in model.outputs:
        layer = output._keras_history.operation
        layers.append(layer)
        if isinstance(layer, keras.layers.Activation):
            layers.append(layer.input._keras_history.operation)
    return layers


def _logits_of(model: keras.Model, activation: Activation) -> Callable[..., list[tf.Tensor]]:
    """A function from images to logits, cut before the softmax where that is a layer of its own."""
    tensors = []
    are_logits = []
    for output in model.outputs:
        layer = output._keras_history.operation
        own = getattr(layer, "activation", None)
        if isinstance(layer, keras.layers.Activation):
            tensors.append(layer.input)
            are_logits.append(True)
        else:
            tensors.append(output)
            are_logits.append(own is None or own is keras.activations.linear)
    cut = keras.Model(model.inputs[0], tensors)

    def logits(images: tf.Tensor, training: bool) -> list[tf.Tensor]:
        outputs = [tf.cast(output, tf.float32) for output in tf.nest.flatten(cut(images, training=training))]
        return [
            output if already else _to_logits(output, activation)
            for output, already in zip(outputs, are_logits, strict=True)
        ]

    return logits


def _to_logits(probabilities: tf.Tensor, activation: Activation) -> tf.Tensor:
    p: Any = tf.clip_by_value(probabilities, 1e-7, 1.0 - 1e-7)
    # Softmax of log p is p again, so the loss is the same as from true logits.
    return tf.math.log(p) if activation == "softmax" else tf.math.log(p) - tf.math.log1p(-p)
