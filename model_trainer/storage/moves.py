"""Moves and copies local files without ever overwriting one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["free_name", "link_or_copy", "move_aside"]


def free_name(target: Path) -> Path:
    """`target` if no such file exists, otherwise the first free one of `name-2.jpg`, `name-3.jpg`, ..."""
    number, candidate = 1, target
    while os.path.lexists(candidate):
        number += 1
        candidate = _numbered(target, number)
    return candidate


def link_or_copy(source: Path, target: Path) -> None:
    """Creates a hard link, or a copy if links are not possible, and the parent folders.

    Raises:
        FileExistsError: `target` exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _link_or_copy(source.resolve(), target)


def move_aside(source: Path, target: Path) -> Path:
    """Moves a file, also to another disk, and creates the parent folders.

    Returns:
        The new path; numbered as in `free_name` if `target` exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = target if number == 1 else _numbered(target, number)
        try:
            if source.is_symlink():
                os.symlink(source.resolve(), candidate)
            else:
                _link_or_copy(source, candidate)
        except FileExistsError:
            number += 1
            continue
        source.unlink()
        return candidate


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or a file system without links
        with open(source, "rb") as old, open(target, "xb") as new:
            try:
                shutil.copyfileobj(old, new)
            except BaseException as error:
                target.unlink()  # an incomplete file; the source is unchanged
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = str(target)
                raise
        shutil.copystat(source, target)
