"""Predefined lists of augmentations, for `Run(augment=...)`."""

from __future__ import annotations

from model_trainer.pipeline.augment.augmentation import Augmentation
from model_trainer.pipeline.augment.geometry import RandomFlip, RandomRotation, RandomZoom

__all__ = ["KERAS_TRAINER"]

# The default augmentation of keras-trainer, `ImageDataGenerator(rotation_range=180, zoom_range=0.1,
# horizontal_flip=True, vertical_flip=True, fill_mode="nearest")`, in the order in which Keras applies them.
# Source: https://github.com/triagemd/keras-trainer/blob/master/keras_trainer/trainer.py
KERAS_TRAINER: tuple[Augmentation, ...] = (
    RandomRotation(degrees=180),
    RandomZoom(factor=0.1),
    RandomFlip(horizontal=True, vertical=True),
)
