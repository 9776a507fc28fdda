"""Chooses the source for a path, such as one from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.image_folder import ImageFolder
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.recordio import MxnetList, RecordIO
from model_trainer.sources.source import Source
from model_trainer.sources.tfrecords import TFRecords
from model_trainer.storage import files

__all__ = ["source_of_path"]

MANIFESTS = (".csv", ".tsv", ".json", ".jsonl", ".manifest", ".parquet")


def source_of_path(path: str, *, root: str | None = None, classes: Sequence[str] | None = None) -> Source:
    """The source for a path, by its kind.

    Args:
        path: a folder of class folders, a manifest, a `.rec` or `.lst` file, or a name or pattern of TFRecord files.
        root: the base folder of the paths in a manifest or `.lst` file.
        classes: names of the classes in their order; None leaves them to the source.

    Raises:
        DataError: the path is none of these.
        ConfigError: `root` is given for a kind of source that has none.
    """
    kind = _kind_of(path)
    options: dict[str, object] = {} if classes is None else {"classes": tuple(classes)}
    if root is not None:
        if "root" not in kind.model_fields:
            raise ConfigError(f"is for the paths in a manifest or .lst, which {path} is not.", "--root")
        options["root"] = root
    return kind.model_validate({"path": path, **options})


def _kind_of(path: str) -> type[Source]:
    if files.is_local_folder(path):
        return ImageFolder
    if ".tfrecord" in Path(path).name:
        return TFRecords
    suffix = Path(path).suffix.lower()
    if suffix in MANIFESTS:
        return Manifest
    if suffix == ".rec":
        return RecordIO
    if suffix == ".lst":
        return MxnetList
    if "://" not in path and files.is_file(path):
        raise DataError(
            f"{path} is not a data set: expected a folder with one folder for each class, a manifest "
            f"({', '.join(MANIFESTS)}), a .rec, .lst or .tfrecord file."
        )
    return ImageFolder
