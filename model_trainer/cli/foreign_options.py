"""The options that say what a model file of another origin does not, shared by the commands that read one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from model_trainer.errors import ConfigError
from model_trainer.storage import files

__all__ = ["Classes", "ClassesOfData", "Root", "Spec", "read_classes"]

MAX_CHARACTERS = 8_000_000  # of a file of names
MAX_PATH_LENGTH = 256

Spec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The network in a file that Model Trainer did not write: a name that `model-trainer specs` lists, or a "
        "model_spec.json.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="The names of its outputs in their order: a,b,c, or a text file with one on each line. Goes with --spec.",
    ),
]

ClassesOfData = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="The names of the classes in the order of their numbers: a,b,c, or a text file with one on each line. "
        "With --spec those of the model's outputs.",
    ),
]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="The folder below which the paths of a manifest are.")
]


def read_classes(names: str | None) -> list[str] | None:
    """The names behind `--classes`.

    Raises:
        ConfigError: the text file cannot be read, a name is empty, or comes twice.
    """
    if names is None:
        return None
    path = Path(names)
    looks_like_file = "," not in names and (path.suffix == ".txt" or "/" in names)
    is_file = looks_like_file or (0 < len(names) < MAX_PATH_LENGTH and files.exists(path))
    try:
        found = _read_lines(path) if is_file else names.split(",")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"names the file {names}, which cannot be read: {reason}.", "--classes") from error
    found = [name.strip() for name in found]
    while is_file and found and not found[-1]:
        found.pop()
    where = f"line {found.index('') + 1} of {names}" if is_file and "" in found else "a name"
    if not found or "" in found:
        raise ConfigError(f"is {names!r}, but {where} is empty.", "--classes")
    twice = next((name for name, count in Counter(found).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"has the name {twice!r} twice; each output needs one of its own.", "--classes")
    return found


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file, also of one from Windows.

    Raises:
        OSError, UnicodeDecodeError: it is no file, no text, or too long for a list of names.
    """
    with files.open_text(path, "utf-8-sig") as file:
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise OSError(0, f"it is longer than {MAX_CHARACTERS:,} characters")
    return text.splitlines()
