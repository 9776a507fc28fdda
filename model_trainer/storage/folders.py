"""Folders that are made whole, and held by one process."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

from model_trainer.errors import StorageError
from model_trainer.storage import files

__all__ = ["filled_folder", "make_run_dir", "only_process"]


def make_run_dir(output_dir: files.StrPath, name: str) -> PurePath:
    """Makes `output_dir/name`, or `name-2`, `name-3`, ... when that folder is there already.

    Raises:
        StorageError: the folder cannot be made; says why.
    """
    parent = files.as_path(output_dir)
    suffix = 1
    while True:
        folder = parent / (name if suffix == 1 else f"{name}-{suffix}")
        try:
            files.make_folder(folder, new=True)
            return folder
        except FileExistsError:
            if files.exists(parent) and not files.is_folder(parent):
                raise StorageError(f"{parent} is a file; `output_dir` should be a folder.") from None
            suffix += 1
        except OSError as error:
            raise StorageError(
                f"The output folder {folder} could not be made: {error.strerror}. "
                "Choose another: --set output_dir=/some/folder"
            ) from error


@contextlib.contextmanager
def only_process(folder: PurePath) -> Iterator[None]:
    """Holds `folder` for this process inside the block.

    Raises:
        StorageError: another process holds it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.lock(folder))
        except BlockingIOError:
            raise StorageError(
                f"Another process is training in {folder.parent}. Wait for it, or stop it; then go on with --resume."
            ) from None
        yield


@contextlib.contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """A local folder beside `folder`, which becomes `folder`, absent or empty by then, at the end of the block.

    So an interrupted call leaves no half of it.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".filling-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if os.path.isdir(folder):
            folder.rmdir()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
