"""The copy of a network that is trained: another precision, logits as outputs, and stateless randomness.

The plain float32 network is the one that is saved. Its training copy has layers of the same names and, by
`copy_weights`, the same weights; it shares no variables with it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from model_trainer.network.batch_norm import FusedBatchNormalization, Moments, MovingAverages, recorded_moments
from model_trainer.network.cpu_layers import cpu_form
from model_trainer.network.graph import Substitute, assign_weights, finalize, rebuild_graph
from model_trainer.network.portable import clone_layer
from model_trainer.network.stages import TwoStageNetwork

__all__ = ["StepSeeds", "TrainingCopy", "copy_weights", "make_training_copy"]


@dataclass
class StepSeeds:
    """The seeds of all random layers of a model: functions of (seed, step, accumulation slice, replica, layer).

    The train step sets the step with `at`, and the accumulation slice with `begin_slice`.
    """

    seed: int
    step: tf.Tensor = field(default_factory=lambda: tf.constant(0, tf.int64))
    _pass: threading.local = field(default_factory=threading.local)  # each replica has its own thread

    @contextlib.contextmanager
    def at(self, step: tf.Tensor) -> Iterator[None]:
        """Sets the step, int64 `()`, within the block.

        It is reset afterwards, because a tensor of a graph is invalid outside, where a callback may call the model.
        """
        previous_step, self.step = self.step, step
        try:
            yield
        finally:
            self.step = previous_step
            self.begin_slice(0)

    def begin_slice(self, number: int) -> None:
        """Sets the accumulation slice of its batch that this replica computes."""
        self._pass.slice = number

    @contextlib.contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Counts the draws of each layer within the block, since a layer may draw or be called several times."""
        self._pass.draws = {}
        try:
            yield
        finally:
            del self._pass.draws

    def layer_seed(self, number: int, ordered: bool = True) -> tf.Tensor:
        """The seed, int32 `(2,)`, for the next draw of the `number`th random layer. Keras passes `ordered`."""
        fold_in = tf.random.experimental.stateless_fold_in
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        seed = fold_in(tf.constant([self.seed, 0x6472 + getattr(self._pass, "slice", 0)], tf.int32), self.step)
        seed = fold_in(fold_in(seed, tf.cast(replica, tf.int32)), number)
        draws = getattr(self._pass, "draws", {})
        draw = draws.get(number, 0)
        draws[number] = draw + 1
        return fold_in(seed, draw) if draw else seed


@dataclass(frozen=True)
class TrainingCopy:
    """The copy of a network that is trained.

    Attributes:
        network: the copy, in two stages like the plain network; `network.model` has the same inputs and outputs.
        seeds: the seeds of its random layers.
        moving_statistics: the moving averages of its batch normalization; the train step updates them with the moments
            of the forward pass.
        statistics: other variables that a forward pass changes, such as those of the user's own layers.
    """

    network: TwoStageNetwork
    seeds: StepSeeds
    moving_statistics: MovingAverages
    statistics: list[keras.Variable]

    @property
    def model(self) -> keras.Model:
        return self.network.model

    def outputs(self, images: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """Runs the network up to the logits.

        Args:
            images: preprocessed images `(batch, height, width, channels)`.
            training: whether layers such as dropout run in training mode.

        Returns:
            A float32 tensor for each output, before its activation, such as logits `(batch, num_classes)`.
        """
        with self.seeds.forward_pass():
            outputs = tf.nest.flatten(self.network.to_logits(images, training=training))
        return [tf.cast(output, tf.float32) for output in outputs]

    def training_pass(self, images: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, Moments]]:
        """Runs the network in training mode; returns its outputs, and the moments of batch normalization by layer."""
        with recorded_moments() as moments:
            outputs = self.outputs(images, training=True)
        return outputs, moments


def make_training_copy(
    plain: TwoStageNetwork,
    precision: str,
    seed: int,
    synchronized_batch_norm: bool = False,
    batch_norm_momentum: float | None = None,
) -> TrainingCopy:
    """Copies `plain` with every layer computing in `precision`; those that compute the logits stay float32.

    Args:
        plain: the float32 network that is saved.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        seed: seed of dropout and other random layers.
        synchronized_batch_norm: whether batch normalization normalizes over all devices.
        batch_norm_momentum: momentum of the moving averages; None takes that of each layer.
    """
    final = plain.final_layers()
    seeds = StepSeeds(seed)

    def substitute(operation: keras.Operation, name: str) -> Substitute:
        if not isinstance(operation, keras.Layer):
            return Substitute((), operation)  # of the user's own model; it computes in the dtype of its inputs
        layer = clone_layer(operation, name, "float32" if name in final else precision)
        if type(layer) is keras.layers.BatchNormalization and not layer.renorm:
            layer = FusedBatchNormalization.from_config(layer.get_config())
        layer = cpu_form(layer)
        return Substitute((layer,), layer)

    source = keras.Model(plain.model.inputs[0], [plain.features, *plain.logits, *plain.model.outputs])
    graph = rebuild_graph(source, substitute)
    copies = [layer for _, substitute in graph.substitutes for layer in substitute.layers]
    _adapt_sublayers(copies, seeds, synchronized_batch_norm, batch_norm_momentum)
    for layer in (each for outer in copies if outer.name in plain.inference_layers for each in outer._flatten_layers()):
        _force_inference(layer)
    features, *rest = graph.outputs
    count = len(plain.logits)
    model = keras.Model(graph.images, rest[count:] if count > 1 else rest[count], name=plain.model.name)
    network = replace(plain, model=model, features=features, logits=tuple(rest[:count]))
    assert network.to_logits  # built now, and not while the train step is traced
    assign_weights((old, substitute.layers) for old, substitute in graph.substitutes)
    batch_norms = [
        layer
        for layer in copies
        if isinstance(layer, FusedBatchNormalization) and layer.name not in plain.inference_layers
    ]
    averages = MovingAverages(batch_norms, batch_norm_momentum)
    _save_as(model, plain.model)
    return TrainingCopy(network, seeds, averages, _other_statistics(model, averages))


def _save_as(model: keras.Model, plain: keras.Model) -> None:
    """Makes `model` save and load by way of `plain`, which has the same weights, and no layers of Model Trainer."""

    def save_with(method: Callable[..., None]) -> Callable[..., None]:
        def save(*args: Any, **kwargs: Any) -> None:
            copy_weights(model, plain)
            method(*args, **kwargs)

        return save

    def load_weights(*args: Any, **kwargs: Any) -> None:
        copy_weights(model, plain)  # a file may contain only some of the weights
        plain.load_weights(*args, **kwargs)
        copy_weights(plain, model)

    model.save, model.save_weights = save_with(plain.save), save_with(plain.save_weights)
    model.load_weights = load_weights


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of `source` to `target`, the same network in another precision."""
    for old, new in zip(source.weights, target.weights, strict=True):
        new.assign(old)
    finalize(target.layers)


def _force_inference(layer: keras.Layer) -> None:
    """Makes `layer` run in inference mode even while the rest trains, as `base(images, training=False)` requests.

    When Keras runs a model, the model's own `training` overrides that of the call, contrary to its guides.

    Source: https://github.com/keras-team/keras/issues/20285
    """
    call = layer.call
    if "training" in inspect.signature(call).parameters:
        layer.call = lambda *args, **kwargs: call(*args, **{**kwargs, "training": False})


def _adapt_sublayers(
    layers: Iterable[keras.Layer], seeds: StepSeeds, synchronized_batch_norm: bool, momentum: float | None
) -> None:
    """Sets seeds and options of sublayers, after building, because some layers create others when they are built."""
    count = 0
    for layer in (each for outer in layers for each in outer._flatten_layers()):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = layer.synchronized or synchronized_batch_norm
            layer.momentum = layer.momentum if momentum is None else momentum
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                # Keras' own `next` keeps state, and draws the same mask on every replica.
                value.next = functools.partial(seeds.layer_seed, count)
                count += 1


def _other_statistics(model: keras.Model, averages: MovingAverages) -> list[keras.Variable]:
    """Variables that never train, such as statistics of custom layers; not weights of frozen layers, nor `averages`."""
    layers = model._flatten_layers(include_self=False)
    flags = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = True
    statistics = list(model.non_trainable_variables)
    for layer, flag in zip(layers, flags, strict=True):  # wrappers precede the layers that they wrap
        layer.trainable = flag
    average_ids = {id(variable) for variable in averages.variables}
    return [variable for variable in statistics if id(variable) not in average_ids]
