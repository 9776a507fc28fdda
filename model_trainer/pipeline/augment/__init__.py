"""Random augmentation of training images: stateless, on uint8, with the same result inside `tf.data` and eagerly.

Declare any of these in `Run(augment=...)`: first at most one crop, then augmentations of single images, then those that
mix a batch.
"""

from __future__ import annotations

from model_trainer.pipeline.augment.apply import Stages, augment_image, augment_transform, split_augment
from model_trainer.pipeline.augment.augmentation import Augmentation, BatchAugmentation, Crop
from model_trainer.pipeline.augment.color import (
    RandomBrightness,
    RandomContrast,
    RandomGrayscale,
    RandomHue,
    RandomSaturation,
)
from model_trainer.pipeline.augment.crops import RandomCrop, RandomResizedCrop
from model_trainer.pipeline.augment.erasing import RandomErasing
from model_trainer.pipeline.augment.geometry import RandomFlip, RandomRotation, RandomShear, RandomShift, RandomZoom
from model_trainer.pipeline.augment.mixing import CutMix, MixUp
from model_trainer.pipeline.augment.policies import RandAugment, TrivialAugment
from model_trainer.pipeline.augment.presets import KERAS_TRAINER
from model_trainer.pipeline.augment.quality import RandomBlur, RandomJpegQuality
from model_trainer.pipeline.augment.transform import compose, move_boxes, move_points

__all__ = [
    "KERAS_TRAINER",
    "Augmentation",
    "BatchAugmentation",
    "Crop",
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomGrayscale",
    "RandomHue",
    "RandomJpegQuality",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSaturation",
    "RandomShear",
    "RandomShift",
    "RandomZoom",
    "Stages",
    "TrivialAugment",
    "augment_image",
    "augment_transform",
    "compose",
    "move_boxes",
    "move_points",
    "split_augment",
]
