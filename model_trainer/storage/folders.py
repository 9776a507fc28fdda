"""Creates folders: output folders of runs, folders locked by one process, folders filled atomically."""

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
    """Creates `output_dir/name`, or `name-2`, `name-3`, ... if that folder exists already.

    Raises:
        StorageError: the folder cannot be created; the message gives the reason.
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
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"The output folder {folder} could not be created: {error.strerror}. "
                "Choose another: --set output_dir=/some/folder"
            ) from error


@contextlib.contextmanager
def only_process(folder: PurePath) -> Iterator[None]:
    """Locks `folder` for this process inside the `with` block.

    Raises:
        StorageError: another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(folder))
        except BlockingIOError as error:
            which = f" ({error.strerror})" if "://" in str(folder) else ""
            raise StorageError(
                f"Another process is training in {folder.parent}{which}. Wait for it or stop it, then continue with "
                "--resume."
            ) from None
        yield


@contextlib.contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder, which is renamed to `folder` at the end of the `with` block.

    So an interrupted call leaves no incomplete folder.

    Args:
        folder: on the local disk; missing or empty at the end of the block.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".filling-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if os.path.isdir(folder):
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
