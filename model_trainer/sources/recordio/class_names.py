"""The class names in a text file next to the records, because RecordIO itself only stores numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import files
from model_trainer.storage.files import as_path

__all__ = ["class_names_path", "class_names_text", "load_class_names"]


def class_names_path(path: str) -> Path:
    """The path of the class names: `train.classes.txt` for `train.rec`."""
    return as_path(path).with_suffix(".classes.txt")


def class_names_text(classes: Sequence[str]) -> str:
    """The content of the file of class names, one per line.

    Raises:
        DataError: a name is empty or has more than one line.
    """
    for name in classes:
        if not name.strip() or len(name.splitlines()) != 1:
            raise DataError(
                f"The class name {name!r} is empty or has several lines; a text file cannot store it. Rename it."
            )
    return "".join(f"{name}\n" for name in classes)


def load_class_names(path: str) -> tuple[str, ...] | None:
    """The class names of the `.rec` or `.lst` file `path`; None if there is no file of class names.

    Raises:
        DataError: the class names cannot be read.
    """
    names = class_names_path(path)
    if not files.is_file(names):
        return None
    try:
        classes = tuple(files.read_text(names).removesuffix("\n").split("\n"))
    except StorageError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{names} could not be read: {error}. It should be UTF-8, one class per line.") from error
    if len(set(classes)) < len(classes) or "" in classes:
        raise DataError(f"{names} has an empty line, or a class twice. It should have one class per line.")
    return classes
