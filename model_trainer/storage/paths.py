"""Paths as objects, with and without a scheme."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import cast

__all__ = ["RemotePath", "StrPath", "as_path"]

StrPath = str | os.PathLike[str]


class RemotePath(PurePosixPath):
    """A path with a scheme, such as memory://box/note.txt, to be joined and taken apart as a `Path` is."""

    def __str__(self) -> str:
        scheme, *names = self.parts  # "memory:" and the rest
        return f"{scheme}//{'/' if scheme == 'file:' else ''}{'/'.join(names)}"

    def __fspath__(self) -> str:
        return str(self)


def as_path(path: StrPath) -> Path:
    """The path as an object: on the local disk a `Path`, otherwise a `RemotePath`, which joins and divides as one."""
    text = os.fspath(path)
    return cast(Path, RemotePath(text)) if "://" in text else Path(text)
