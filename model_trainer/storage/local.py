"""Files on a local disk: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from model_trainer.errors import StorageError

__all__ = ["make_run_dir", "sync_folder", "write_text", "written_whole"]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path beside `path` to write to; what was written there becomes `path` at the end, or nothing does.

    The temporary name keeps the suffix, because writers such as Keras choose the format by it.

    Raises:
        StorageError: the file cannot be written; names it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def make_run_dir(output_dir: str | os.PathLike[str], name: str) -> Path:
    """Makes `output_dir/name`, or `name-2`, `name-3`, ... when that folder is there already.

    Raises:
        StorageError: the folder cannot be made; says why.
    """
    parent = Path(output_dir)
    suffix = 1
    while True:
        folder = parent / (name if suffix == 1 else f"{name}-{suffix}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if parent.exists() and not parent.is_dir():
                raise StorageError(f"{parent} is a file; `output_dir` should be a folder.") from None
            suffix += 1
        except OSError as error:
            raise StorageError(
                f"The output folder {folder} could not be made: {error.strerror}. "
                "Choose another: --set output_dir=/some/folder"
            ) from error


def sync_folder(folder: Path) -> None:
    """Makes new names in `folder` survive a power cut."""
    # Without it a power cut may forget the new name although the content is on the disk.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
