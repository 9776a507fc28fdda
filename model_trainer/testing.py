"""A network that trains in a second: for tests, and for trying out a pipeline, a loss or an installation."""

from __future__ import annotations

import contextlib
import random
import socket

import keras

__all__ = ["free_addresses", "small_backbone"]


def free_addresses(count: int) -> tuple[str, ...]:
    """Returns unused addresses of this machine, such as "127.0.0.1:14817".

    Their ports are neither ephemeral ports of the system nor those of a rendezvous, so that no other process takes one
    before it is used.
    """
    addresses: list[str] = []
    with contextlib.ExitStack() as sockets:
        while len(addresses) < count:
            port = random.SystemRandom().randrange(10_000, 20_000)
            with contextlib.suppress(OSError):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
                addresses.append(f"127.0.0.1:{port}")
    return tuple(addresses)


def small_backbone(
    input_shape: tuple[int, int, int],
    batch_normalization: bool = False,
    dropout_rate: float = 0.0,
    logarithm: bool = False,
) -> keras.Model:
    """Returns a network of two convolutions, `conv1` and `conv2`, for images of at least 4 by 4 pixels.

    Args:
        input_shape: `(height, width, channels)`.
        batch_normalization: whether to add a layer `norm1` after `conv1`.
        dropout_rate: above 0 adds a layer `dropout1` after `conv1`.
        logarithm: adds the logarithm of the mean brightness of images from -1 to 1, which makes the loss of a black
            image infinite.
    """
    images = keras.Input(input_shape)
    features = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv1")(images)
    if batch_normalization:
        features = keras.layers.BatchNormalization(name="norm1")(features)
    if dropout_rate:
        features = keras.layers.Dropout(dropout_rate, name="dropout1")(features)
    features = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv2")(features)
    if logarithm:
        features = features + keras.ops.log(keras.ops.mean(images + 1.0, axis=(1, 2, 3), keepdims=True))
    return keras.Model(images, features, name="small_backbone")
