"""Local files moved and copied without ever overwriting one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["free_name", "link_or_copy", "move_aside"]


def free_name(wanted: Path) -> Path:
    """`wanted`, or where that is taken the first of `name-2.jpg`, `name-3.jpg`, ... that is not."""
    number, target = 1, wanted
    while os.path.lexists(target):
        number += 1
        target = _numbered(wanted, number)
    return target


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where there are no links; makes the folders above.

    Raises:
        FileExistsError: `target` is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _link_or_copy(source.resolve(), target)


def move_aside(source: Path, wanted: Path) -> Path:
    """Moves a file, also to another disk, and makes the folders above; where it came to lie, see `free_name`."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        target = wanted if number == 1 else _numbered(wanted, number)
        try:
            if source.is_symlink():
                os.symlink(source.resolve(), target)
            else:
                _link_or_copy(source, target)
        except FileExistsError:
            number += 1
            continue
        source.unlink()
        return target


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
                target.unlink()  # not half a file; the whole one is where it was
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = str(target)
                raise
        shutil.copystat(source, target)
