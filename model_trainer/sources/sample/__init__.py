"""The built-in sample: photos of clothes in 10 classes, 2,000 to train and 500 to validate."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from model_trainer.errors import StorageError

__all__ = ["unpack_sample"]

ARCHIVE = Path(__file__).with_name("clothes.zip")


def unpack_sample(folder: str | Path = "data/sample") -> Path:
    """Unpacks the sample into `folder/train/CLASS/` and `folder/val/CLASS/`, unless it is there already.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Aside and renamed, so that an interrupted call leaves no half of it.
        aside = Path(tempfile.mkdtemp(prefix=".sample-", dir=folder.parent))
        try:
            with zipfile.ZipFile(ARCHIVE) as archive:
                archive.extractall(aside)
            aside.chmod(0o755)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"The sample could not be unpacked into {folder}: {error.strerror}.") from error
    return folder
