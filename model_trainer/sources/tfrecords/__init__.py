"""TFRecord files of `tf.train.Example`, read by index."""

from model_trainer.sources.tfrecords.features import Features
from model_trainer.sources.tfrecords.source import TFRecords

__all__ = ["Features", "TFRecords"]
