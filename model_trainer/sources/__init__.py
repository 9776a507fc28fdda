"""Data sources. Importing this package registers all of them, so that each can be loaded from JSON."""

from model_trainer.sources.combined import Concatenated, Filtered, Reclassed, Subset
from model_trainer.sources.examples import Examples
from model_trainer.sources.folds import Fold
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.recordio import MxnetList, RecordIO
from model_trainer.sources.source import Source
from model_trainer.sources.split import Split
from model_trainer.sources.tfds import Tfds
from model_trainer.sources.tfrecords import Features, TFRecords

__all__ = [
    "Concatenated",
    "Examples",
    "Features",
    "Filtered",
    "Fold",
    "ImageFolder",
    "Manifest",
    "MxnetList",
    "Reclassed",
    "RecordIO",
    "Source",
    "Split",
    "Subset",
    "TFRecords",
    "Tfds",
]
