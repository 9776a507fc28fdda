"""Reads and writes MXNet's RecordIO files, without MXNet."""

from model_trainer.sources.recordio.source import MxnetList, RecordIO
from model_trainer.sources.recordio.writer import write_recordio

__all__ = ["MxnetList", "RecordIO", "write_recordio"]
