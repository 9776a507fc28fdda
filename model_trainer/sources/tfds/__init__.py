"""Data sets of tensorflow-datasets, read by index."""

from model_trainer.sources.tfds.source import Tfds

__all__ = ["Tfds"]
