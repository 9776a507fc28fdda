"""Keras' `fit` for `train.py`: `image_dataset_from_directory`, random crop and flip as layers, Adam.

train_keras.py FOLDER CLASS POLICY
"""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import tensorflow as tf

from rounds import answer  # isort: skip

WARM_UP = 4  # steps of a round that are not timed: `fit` traces, and queues fill up


class Clock(keras.callbacks.Callback):
    """Times a round without its first steps."""

    def __init__(self) -> None:
        super().__init__()
        self.started = self.ended = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == WARM_UP - 1:
            self.started = time.perf_counter()
        self.ended = time.perf_counter()


def main() -> None:
    folder, name, policy = sys.argv[1:]
    keras.mixed_precision.set_global_policy(policy)
    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(256, 256), batch_size=32, crop_to_aspect_ratio=True, verbose=False
    )
    augment = keras.Sequential([keras.layers.RandomCrop(224, 224), keras.layers.RandomFlip("horizontal")])
    images = images.map(lambda x, y: (augment(x, training=True) / 127.5 - 1.0, y), num_parallel_calls=tf.data.AUTOTUNE)
    images = images.repeat().prefetch(tf.data.AUTOTUNE)
    backbone = getattr(keras.applications, name)(
        include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3)
    )
    outputs = keras.layers.Dense(10, activation="softmax", dtype="float32")(backbone.output)
    model = keras.Model(backbone.input, outputs)
    model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def train(num_steps: int) -> float:
        clock = Clock()
        model.fit(images, steps_per_epoch=WARM_UP + num_steps, verbose=0, callbacks=[clock])
        return clock.ended - clock.started

    train(1)
    answer(train)


if __name__ == "__main__":
    main()
