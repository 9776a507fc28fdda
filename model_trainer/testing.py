"""A network that trains in a second: for trying a pipeline, a loss or an installation, and for our own tests."""

from __future__ import annotations

import keras

__all__ = ["small_backbone"]


def small_backbone(
    input_shape: tuple[int, int, int], batch_normalization: bool = False, dropout_rate: float = 0.0
) -> keras.Model:
    """Two convolutions over images of any size down to 4 by 4; its layers are named `conv1`, `conv2`."""
    images = keras.Input(input_shape)
    features = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv1")(images)
    if batch_normalization:
        features = keras.layers.BatchNormalization(name="norm1")(features)
    if dropout_rate:
        features = keras.layers.Dropout(dropout_rate, name="dropout1")(features)
    features = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv2")(features)
    return keras.Model(images, features, name="small_backbone")
