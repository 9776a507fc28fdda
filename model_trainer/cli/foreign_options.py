"""The options `--spec`, `--classes` and `--trust` for model files from elsewhere, shared by commands that read them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from model_trainer.errors import ConfigError, StorageError
from model_trainer.storage import files

__all__ = ["Classes", "ClassesOfData", "ClassesOfDataOrModel", "Root", "Spec", "Trust", "read_classes"]

MAX_CHARACTERS = 8_000_000  # in a file of names
MAX_PATH_LENGTH = 256

Spec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Spec of a model file that Model Trainer did not write: a name from `model-trainer specs`, or a "
        "model_spec.json.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="With --spec: names of the model's outputs, in order: a,b,c, or a text file with one name per line.",
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code that the file names, also outside keras.applications.")
]

ClassesOfData = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Names of the classes, in the order of their indices: a,b,c, or a text file with one name per line.",
    ),
]
ClassesOfDataOrModel = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Names of the classes of --data, in the order of their indices, or with --spec of the model's outputs: "
        "a,b,c, or a text file with one name per line.",
    ),
]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="Base folder of the image paths in a manifest.")
]


def read_classes(names: str | None) -> list[str] | None:
    """Returns the names in `--classes`, or in the file that it names.

    Raises:
        ConfigError: the text file cannot be read, a name is empty, or occurs twice.
    """
    if names is None:
        return None
    path = Path(names)
    has_file_name = "," not in names and (path.suffix == ".txt" or "/" in names)
    is_file = has_file_name or (0 < len(names) < MAX_PATH_LENGTH and files.exists(path))
    try:
        classes = _read_lines(path) if is_file else names.split(",")
    except StorageError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ConfigError(f"names the file {names}, which cannot be read: {reason}.", "--classes") from error
    classes = [name.strip() for name in classes]
    while is_file and classes and not classes[-1]:
        classes.pop()
    where = f"line {classes.index('') + 1} of {names}" if is_file and "" in classes else "a name"
    if not classes or "" in classes:
        raise ConfigError(f"is {names!r}, but {where} is empty.", "--classes")
    duplicate = next((name for name, count in Counter(classes).items() if count > 1), None)
    if duplicate is not None:
        raise ConfigError(f"has the name {duplicate!r} twice; each output needs a different name.", "--classes")
    return classes


def _read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file, with or without a byte order mark.

    Raises:
        OSError, UnicodeDecodeError: it is not a file, not UTF-8, or too long for a list of names.
    """
    with files.open_text(path, "utf-8-sig") as file:
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise OSError(0, f"it is longer than {MAX_CHARACTERS:,} characters")
    return text.splitlines()
