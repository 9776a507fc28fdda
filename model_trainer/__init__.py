"""Model Trainer: trains Keras image models from a short declaration.

Everything that a run consists of can be imported from here. Declaring a run loads neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from model_trainer.version import __version__

# Hides TensorFlow's start-up messages, unless the user has set the variable.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The module of each public name. Imported at first use, so that `model-trainer --help` loads very little.
_HOMES = {
    "user_code": ["Call", "Live"],
    "errors": [
        "ConfigError",
        "DataError",
        "DeviceError",
        "DivergedError",
        "MissingExtra",
        "ModelFileError",
        "ModelTrainerError",
        "StorageError",
    ],
    "specs": ["ModelSpec"],
    "sources.image_folder": ["ImageFolder"],
    "sources.manifest": ["Manifest"],
    "sources.recordio": ["MxnetList", "RecordIO", "write_recordio"],
    "sources.tfds": ["Tfds"],
    "sources.tfrecords": ["Features", "TFRecords"],
    "pipeline.augment": [
        "CutMix",
        "KERAS_TRAINER",
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
        "TrivialAugment",
    ],
    "pipeline.image": ["load_image"],
    "pipeline.sampling": ["EffectiveNumber", "Equiprobable", "PowerOfCount"],
    "run.network": ["L1", "L2", "Network", "OwnModel", "Unfreeze"],
    "model_files.load": ["TrainedModel", "load_model"],
    "tasks.classification": ["Classification"],
    "tasks.losses": ["Asymmetric", "CrossEntropy", "EntropyPenalty", "Focal"],
    "tasks.metrics": ["Accuracy", "MacroRecall", "TopK"],
    "tasks.multi_label": ["MultiLabel"],
    "tasks.multi_label_metrics": [
        "AveragePrecision",
        "ExactMatch",
        "MacroF1",
        "MeanAveragePrecision",
        "MicroF1",
        "PrecisionAtK",
        "RecallAtK",
    ],
    "tasks.task": ["Output"],
    "run.callbacks": ["EarlyStopping"],
    "run.observers": ["LayerNorms"],
    "run.optimizers": ["LAMB", "SGD", "Adam", "AdamW", "Lion", "RMSprop"],
    "run.hardware": ["Hardware"],
    "run.training": ["Divergence", "Training"],
    "run.run": ["Run"],
    "run.trackers": ["MLflow", "WeightsAndBiases"],
    "run.schedules": [
        "Constant",
        "Cosine",
        "Exponential",
        "InverseTime",
        "Polynomial",
        "ReduceOnPlateau",
        "StepDecay",
    ],
    "api": ["evaluate", "predict", "preview", "train", "train_folds"],
}
_LOAD_TENSORFLOW = {"api", "model_files.load", "pipeline.image"}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])

if TYPE_CHECKING:
    from model_trainer.api import evaluate, predict, preview, train, train_folds
    from model_trainer.errors import (
        ConfigError,
        DataError,
        DeviceError,
        DivergedError,
        MissingExtra,
        ModelFileError,
        ModelTrainerError,
        StorageError,
    )
    from model_trainer.model_files.load import TrainedModel, load_model
    from model_trainer.pipeline.augment import (
        KERAS_TRAINER,
        CutMix,
        MixUp,
        RandAugment,
        RandomBlur,
        RandomBrightness,
        RandomContrast,
        RandomCrop,
        RandomErasing,
        RandomFlip,
        RandomGrayscale,
        RandomHue,
        RandomJpegQuality,
        RandomResizedCrop,
        RandomRotation,
        RandomSaturation,
        RandomShear,
        RandomShift,
        RandomZoom,
        TrivialAugment,
    )
    from model_trainer.pipeline.image import load_image
    from model_trainer.pipeline.sampling import EffectiveNumber, Equiprobable, PowerOfCount
    from model_trainer.run.callbacks import EarlyStopping
    from model_trainer.run.hardware import Hardware
    from model_trainer.run.network import L1, L2, Network, OwnModel, Unfreeze
    from model_trainer.run.observers import LayerNorms
    from model_trainer.run.optimizers import LAMB, SGD, Adam, AdamW, Lion, RMSprop
    from model_trainer.run.run import Run
    from model_trainer.run.schedules import (
        Constant,
        Cosine,
        Exponential,
        InverseTime,
        Polynomial,
        ReduceOnPlateau,
        StepDecay,
    )
    from model_trainer.run.trackers import MLflow, WeightsAndBiases
    from model_trainer.run.training import Divergence, Training
    from model_trainer.sources.image_folder import ImageFolder
    from model_trainer.sources.manifest import Manifest
    from model_trainer.sources.recordio import MxnetList, RecordIO, write_recordio
    from model_trainer.sources.tfds import Tfds
    from model_trainer.sources.tfrecords import Features, TFRecords
    from model_trainer.specs import ModelSpec
    from model_trainer.tasks.classification import Classification
    from model_trainer.tasks.losses import Asymmetric, CrossEntropy, EntropyPenalty, Focal
    from model_trainer.tasks.metrics import Accuracy, MacroRecall, TopK
    from model_trainer.tasks.multi_label import MultiLabel
    from model_trainer.tasks.multi_label_metrics import (
        AveragePrecision,
        ExactMatch,
        MacroF1,
        MeanAveragePrecision,
        MicroF1,
        PrecisionAtK,
        RecallAtK,
    )
    from model_trainer.tasks.task import Output
    from model_trainer.user_code import Call, Live


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'model_trainer' has no attribute {name!r}")
    if _HOME_OF[name] in _LOAD_TENSORFLOW:
        importlib.import_module("model_trainer.quiet_tensorflow")
    value = getattr(importlib.import_module(f"model_trainer.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
