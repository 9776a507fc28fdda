"""Path objects, with and without a URL scheme."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import cast

__all__ = ["RemotePath", "StrPath", "as_path"]

StrPath = str | os.PathLike[str]


class RemotePath(PurePosixPath):
    """A path with a scheme, such as memory://box/note.txt, with the methods of a pure path."""

    def __str__(self) -> str:
        scheme, *names = self.parts  # "memory:" and the rest
        return f"{scheme}//{'/' if scheme == 'file:' else ''}{'/'.join(names)}"

    def __fspath__(self) -> str:
        return str(self)


def as_path(path: StrPath) -> Path:
    """Converts a path to an object: a `Path` on the local disk, otherwise a `RemotePath`, which joins like one."""
    text = os.fspath(path)
    return cast(Path, RemotePath(text)) if "://" in text else Path(text)
