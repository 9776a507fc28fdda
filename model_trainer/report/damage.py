"""Turns unforeseen errors about damaged files into one message that names the folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePath

from model_trainer.errors import DataError, ModelTrainerError

__all__ = ["damage_named"]


@contextlib.contextmanager
def damage_named(*folders: PurePath) -> Iterator[None]:
    """Turns an error about values into a DataError that names the output folders.

    The readers check each file and name it, but no check foresees every value: the code in the `with` block lays out
    values of untrusted files. The original error stays chained.
    """
    try:
        yield
    except ModelTrainerError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        names = " or ".join(map(str, folders))
        raise DataError(
            f"A file in {names} is damaged: its values cannot be laid out ({type(error).__name__}). Restore the files "
            "from a copy, or delete evaluation/ or report/ in it to get a report without them."
        ) from error
