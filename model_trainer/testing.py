"""For trying a pipeline, a loss or an installation, and for our own tests: a network that trains in a second."""

from __future__ import annotations

import contextlib
import random
import socket

import keras

__all__ = ["free_addresses", "small_backbone"]


def free_addresses(count: int) -> tuple[str, ...]:
    """Addresses of this machine, such as "127.0.0.1:24817", at which nobody listens.

    Their ports are not among those that the system hands out by itself, nor those that a rendezvous takes: another
    might have one before its owner does.
    """
    found: list[str] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randrange(10_000, 20_000)
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(f"127.0.0.1:{port}")
    return tuple(found)


def small_backbone(
    input_shape: tuple[int, int, int],
    batch_normalization: bool = False,
    dropout_rate: float = 0.0,
    logarithm: bool = False,
) -> keras.Model:
    """Two convolutions over images of any size down to 4 by 4; its layers are named `conv1`, `conv2`.

    Args:
        logarithm: adds the logarithm of the mean brightness of images from -1 to 1, so that for a black one the loss is
            no number.
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
