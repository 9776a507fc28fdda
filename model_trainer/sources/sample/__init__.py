"""The built-in sample data set: photos of clothes in 10 classes, 2,000 for training and 500 for validation."""

from __future__ import annotations

import zipfile
from pathlib import Path

from model_trainer.errors import StorageError
from model_trainer.storage import files
from model_trainer.storage.folders import filled_folder

__all__ = ["unpack_sample"]

ARCHIVE = Path(__file__).with_name("clothes.zip")


def unpack_sample(folder: str | Path = "data/sample") -> Path:
    """Unpacks the sample into `folder/train/CLASS/` and `folder/val/CLASS/`, unless `folder` exists already.

    Returns:
        `folder`.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    if files.is_folder(folder):
        return folder
    try:
        with filled_folder(folder) as temporary, zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(temporary)
    except OSError as error:
        raise StorageError(f"The sample could not be unpacked into {folder}: {error.strerror}.") from error
    return folder
