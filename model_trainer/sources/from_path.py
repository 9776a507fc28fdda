"""The source that a path on the command line means."""

from __future__ import annotations

from pathlib import Path

from model_trainer.errors import DataError
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.recordio import MxnetList, RecordIO
from model_trainer.sources.source import Source
from model_trainer.sources.tfrecords import TFRecords

__all__ = ["source_of_path"]

MANIFESTS = (".csv", ".tsv", ".json", ".jsonl", ".manifest")


def source_of_path(path: str) -> Source:
    """A folder of class folders, a manifest, a `.rec` or `.lst`, or TFRecord files by name or pattern.

    Raises:
        DataError: the path is none of them.
    """
    if ".tfrecord" in Path(path).name:
        return TFRecords(path=path)
    suffix = Path(path).suffix.lower()
    if suffix in MANIFESTS:
        return Manifest(path=path)
    if suffix == ".rec":
        return RecordIO(path=path)
    if suffix == ".lst":
        return MxnetList(path=path)
    if Path(path).is_file():
        raise DataError(
            f"{path} is no data set: expected a folder with one folder for each class, a manifest "
            f"({', '.join(MANIFESTS)}), a .rec, .lst or .tfrecord file."
        )
    return ImageFolder(path=path)
