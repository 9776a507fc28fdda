"""Reads the JSON files of an output folder, each of which may be damaged, untrusted or of another version.

A page stays small whatever they contain: names and texts are cut, and numbers of images are bounded.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from model_trainer.errors import DataError, StorageError
from model_trainer.messages import as_utf8, shown
from model_trainer.storage import files
from model_trainer.storage.read import read_limited

__all__ = [
    "MAX_TABLE_BYTES",
    "MAX_TEXT",
    "RESTORE",
    "Count",
    "ImageName",
    "Name",
    "Text",
    "parsed",
    "shortened",
    "up_to",
]

MAX_TABLE_BYTES = 256_000_000  # of a JSON or CSV file; that of 1,000 classes has 1 MB
RESTORE = "Restore it from a copy, or delete it to get a report without it."
MAX_NAME, MAX_TEXT = 300, 2_000  # characters

Model = TypeVar("Model", bound=BaseModel)


def shortened(text: str, max_characters: int = MAX_NAME) -> str:
    """The text, or as much of it as fits, with "…" at its end.

    Example:
        >>> shortened("a long name", 6)
        'a lon…'
    """
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


def _end(name: str) -> str:
    """The path, or as much of its end as fits: the end distinguishes images better than the beginning."""
    return name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"


def up_to(number: int) -> AfterValidator:
    """Cuts a list that has more than `number` items."""
    return AfterValidator(lambda items: items[:number])


Name = Annotated[str, AfterValidator(shortened)]
Text = Annotated[str, AfterValidator(partial(shortened, max_characters=MAX_TEXT))]
ImageName = Annotated[str, AfterValidator(_end)]
Count = Annotated[int, Field(ge=0, le=2**53)]  # a float holds it exactly


def parsed(model: type[Model], path: PurePath, cure: str) -> Model | None:
    """Reads a JSON file as `model`; None if there is not a file.

    Args:
        cure: ends the message about a damaged file.

    Raises:
        DataError: it cannot be read, or something in it is missing or wrong.
    """
    if not files.exists(path):
        return None
    try:
        return model.model_validate(_content(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = shown(shortened(".".join(map(str, first["loc"]))))
        problem = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path} is damaged: {where}{': ' if where else ''}{problem}. {cure}") from None
    except (ArithmeticError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        raise DataError(f"{path} is damaged: {reason}. {cure}") from error
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. {cure}") from error


def _content(path: PurePath) -> Any:
    # Not pydantic's own parser, which refuses the lone surrogates that earlier versions wrote for other file names.
    return as_utf8(json.loads(read_limited(path, MAX_TABLE_BYTES)))
