"""Attribution maps: which regions of an image support a class, by Grad-CAM on the last feature map.

Source: https://arxiv.org/abs/1610.02391; why this method, on this tensor: docs/decisions/0027-attribution-maps.md.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.messages import counted
from model_trainer.model_files.load import TrainedModel
from model_trainer.network.final_activation import find_final_activation, without_activation
from model_trainer.network.graph import assign_weights, in_float32, is_graph
from model_trainer.network.portable import make_portable
from model_trainer.network.stages import find_feature_map

__all__ = ["GradCAM", "NoFeatureMap", "attribution_maps", "overlay"]

COLOR_MAP = "inferno"  # perceptually uniform; its dark end is transparent in an overlay
MAX_OPACITY = 0.75
# Fraction of the sum of magnitudes; a float32 sum over channels that cancel is off by less than this.
ROUNDING = 1e-5


class NoFeatureMap(ModelTrainerError, ValueError):
    """The network has no feature map whose pixels correspond to regions of the image, so it has no attribution maps."""


def attribution_maps(
    model: keras.Model | TrainedModel, images: np.ndarray, class_indices: np.ndarray, batch_size: int = 32
) -> np.ndarray:
    """Computes which regions of each image support a class, by Grad-CAM.

    A map is `relu(sum of weight * channel)` over the channels of the last feature map, divided by its maximum; the
    weight of a channel is the gradient of the class's logit with respect to that channel, averaged over its pixels. To
    explain further images with the same model, keep a `GradCAM`, which is traced once.

    Args:
        model: a trained model; or a Keras model with one input, whose first output is explained.
        images: uint8 `(num_images, height, width, channels)`, not preprocessed, as `read_image` returns them; for a
            Keras model, its input.
        class_indices: int `(num_images,)`, the class that is explained in each image.
        batch_size: images per batch.

    Returns:
        float32 `(num_images, map_height, map_width)`, 0 to 1; 0 everywhere in an image in which nothing supports the
        class. Each value covers one tile of the image.

    Raises:
        NoFeatureMap: the network has no feature map that can be explained.
        ValueError: the shape of `images` or `class_indices` does not fit, or a class index is out of range.

    Example:
        >>> network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, strides=2)])
        >>> network.add(keras.layers.GlobalAveragePooling2D())
        >>> network.add(keras.layers.Dense(2, activation="softmax"))
        >>> images = np.zeros((5, 16, 16, 3), np.uint8)
        >>> attribution_maps(network, images, np.array([0, 1, 0, 1, 1])).shape
        (5, 7, 7)
    """
    return GradCAM(model)(images, class_indices, batch_size)


class GradCAM:
    """Computes attribution maps with one model; see `attribution_maps`.

    It computes in float32. A model that is nested or in mixed precision is copied; later changes of its weights have no
    effect.

    Args:
        model: see `attribution_maps`.

    Raises:
        NoFeatureMap: see `attribution_maps`.
    """

    def __init__(self, model: keras.Model | TrainedModel) -> None:
        network = model.model if isinstance(model, TrainedModel) else model
        images, output = _in_float32(network)
        logits = _logits(output, network.name)
        features = find_feature_map(images, logits)
        if features is None:
            raise NoFeatureMap(
                f"{network.name} has no attribution maps: it has no feature map (batch, height, width, channels), of "
                "more than one pixel and computed by layers with weights, that its whole output depends on."
            )
        self._spec = model.spec if isinstance(model, TrainedModel) else None
        self._size = tuple(self._spec.target_size if self._spec else images.shape[1:])
        self._map_size = tuple(features.shape[1:3])
        self._num_classes = int(logits.shape[-1])
        # Only the head is differentiated; the backbone runs as in prediction.
        self._backbone = keras.Model(images, features)
        self._head = keras.Model(features, logits)
        dtype = tf.uint8 if self._spec else images.dtype
        signature = [tf.TensorSpec([None, *self._size], dtype), tf.TensorSpec([None], tf.int32)]
        # The concrete function: with several models in one process, TensorFlow would assume that one function is
        # retraced again and again, and warn.
        trace = tf.function(self._maps, autograph=False, input_signature=signature).get_concrete_function
        self._compute = self._maps if tf.config.functions_run_eagerly() else trace()
        self._dtype = dtype

    def __call__(self, images: np.ndarray, class_indices: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Computes the maps; arguments, result and errors as in `attribution_maps`."""
        classes = np.asarray(class_indices)
        self._check(np.asarray(images), classes)
        starts = range(0, len(images), batch_size)
        batches = [(images[start : start + batch_size], classes[start : start + batch_size]) for start in starts]
        maps = [self._compute(tf.cast(batch, self._dtype), tf.cast(indices, tf.int32)) for batch, indices in batches]
        empty = np.zeros((0, *(side or 0 for side in self._map_size)), np.float32)
        return np.concatenate([each.numpy() for each in maps]) if maps else empty

    def _maps(self, images: tf.Tensor, class_indices: tf.Tensor) -> tf.Tensor:
        inputs = images if self._spec is None else self._spec.preprocess(images)
        features = self._backbone(inputs, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            logits = self._head(features, training=False)
            # Images do not depend on each other, so the gradient of the sum is that of each image's logit.
            explained = tf.reduce_sum(tf.gather(logits, class_indices, batch_dims=1))
        terms = features * tf.reduce_mean(tape.gradient(explained, features), axis=[1, 2], keepdims=True)
        # Not a matrix product, which GPUs compute in TensorFloat-32, with 10 bits of mantissa.
        evidence, magnitude = tf.reduce_sum(terms, axis=-1), tf.reduce_sum(tf.abs(terms), axis=-1)
        strongest = tf.reduce_max(evidence, axis=[1, 2], keepdims=True)
        # Terms that cancel leave a rounding error, which the division would amplify. A comparison with NaN is false.
        is_evidence = strongest > ROUNDING * tf.reduce_max(magnitude, axis=[1, 2], keepdims=True)
        is_evidence = tf.logical_and(is_evidence, tf.math.is_finite(strongest))
        return tf.where(is_evidence, tf.nn.relu(evidence) / tf.where(is_evidence, strongest, 1.0), 0.0)

    def _check(self, images: np.ndarray, classes: np.ndarray) -> None:
        fits = len(images.shape) == 4 and all(
            side in (None, length) for side, length in zip(self._size, images.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(f"images should be (num_images, {str(self._size)[1:-1]}), got {images.shape}.")
        if classes.shape != images.shape[:1]:
            raise ValueError(f"class_indices should name a class for each of {counted(len(images), 'image{s}')}.")
        if len(classes) and not 0 <= classes.min() <= classes.max() < self._num_classes:
            raise ValueError(
                f"class_indices should be 0 to {self._num_classes - 1}, got {classes.min()} to {classes.max()}."
            )


def overlay(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Draws an attribution map over the image that the model was given.

    The map is enlarged bilinearly; the larger a value, the brighter and less transparent its color.

    Args:
        image: uint8 `(height, width, 3)`, or gray with one channel.
        attribution: `(map_height, map_width)`, 0 to 1.

    Returns:
        uint8 `(height, width, 3)`.

    Example:
        >>> image = np.full((32, 32, 3), 128, np.uint8)
        >>> overlay(image, np.array([[0.0, 1.0]])).shape
        (32, 32, 3)
    """
    import matplotlib  # takes long to import, and only pictures need it

    height, width = image.shape[:2]
    small = Image.fromarray(np.asarray(attribution, np.float32))
    strength = np.clip(np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)), 0.0, 1.0)
    colors = matplotlib.colormaps[COLOR_MAP](strength)[..., :3] * 255.0
    opacity = MAX_OPACITY * strength[..., None]
    return np.rint((1.0 - opacity) * image + opacity * colors).astype(np.uint8)


@in_float32()
def _in_float32(model: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Input and first output of the model's graph, flat and in float32; of a copy unless the model already is both."""
    if not is_graph(model) or len(model.inputs) != 1:
        raise NoFeatureMap(
            f"{model.name} has no attribution maps: they need a functional or Sequential model with one input."
        )
    layers = model._flatten_layers(include_self=False)
    if all(layer.compute_dtype == "float32" and not is_graph(layer) for layer in layers):
        return model.inputs[0], model.outputs[0]
    try:
        graph = make_portable(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NoFeatureMap(f"{model.name} has no attribution maps: it cannot be copied: {reason}") from error
    assign_weights((old, substitute.layers) for old, substitute in graph.substitutes)
    return graph.images, graph.outputs[0]


@in_float32()
def _logits(output: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """The tensor before the final activation; the output itself if that cannot be determined."""
    try:
        ending = find_final_activation(output, "model")
    except ConfigError:
        # Its gradient is that of its logarithm times a positive number, which the division by the maximum removes.
        logging.info("The logits of %s cannot be recovered; attribution maps explain its log-probabilities.", name)
        return output
    logits, replaced = without_activation(ending, [] if ending.fused is None else [ending.fused.name])
    if replaced is not None:
        assign_weights([(replaced[0], replaced[1:])])
    return logits
