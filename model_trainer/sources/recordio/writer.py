"""Writes examples to a RecordIO file, which MXNet can read, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.recordio.class_names import class_names_path, class_names_text
from model_trainer.sources.recordio.framing import MAX_RECORD_BYTES, frame_record
from model_trainer.sources.recordio.headers import HEADER
from model_trainer.storage import files
from model_trainer.storage.read import why_not_read

__all__ = ["write_recordio"]


def write_recordio(
    examples: Examples, path: str | os.PathLike[str], *, on_progress: Callable[[int], None] | None = None
) -> dict[str, str]:
    """Writes `train.rec`, its index `train.idx` and the class names `train.classes.txt`, each atomically.

    Encoded images are copied unchanged. Single labels are written as one number; tags and probabilities as multi-hot
    rows with -1 for unknown, and both are tags when they are read again. The format cannot store weights and groups;
    they are dropped with a warning. The id of a record is the position of its example.

    Args:
        examples: the examples; `source.read()` of any source.
        path: the `.rec` file; an existing one is replaced.
        on_progress: called after each example with the number of examples done.

    Returns:
        The reasons, by name, of images that were skipped because they could not be read; a warning is logged, too.

    Raises:
        DataError: an example is a crop of its image, no image could be read, or a class name has several lines; then
            nothing is written.
        StorageError: a file cannot be written.

    Example:
        >>> write_recordio(ImageFolder("data/train").read(), "train.rec")
        {}
        >>> RecordIO("train.rec").read().counts()
        array([8, 8])
    """
    path = files.as_path(path)
    if path.suffix != ".rec":
        raise DataError(f"{path} should end in .rec, so that the index next to it can be found.")
    if examples.crops is not None and np.any(examples.crops[:, 2] > 0):
        raise DataError(f"{examples.origin}: a RecordIO file stores whole images, but some examples are crops.")
    names = class_names_text(examples.classes)
    _warn_of_columns(examples)
    skipped: dict[str, str] = {}
    index: list[str] = []

    def frames() -> Iterator[bytes]:
        start = 0
        for number in range(len(examples)):
            image, problem = _read(examples, number)
            if problem:
                skipped[examples.name(number)] = problem
            else:
                index.append(f"{number}\t{start}\n")
                for piece in frame_record(_header(examples, number) + image):
                    start += len(piece)
                    yield piece
            if on_progress is not None:
                on_progress(number + 1)
        if len(skipped) == len(examples):
            raise DataError(f"{examples.origin}: no image could be read, such as {_shown(skipped)}.")
        # Before the records replace older ones, which would otherwise get the wrong names.
        files.write_text(class_names_path(str(path)), names)
        files.write_text(path.with_suffix(".idx"), "".join(index))

    files.write(path, frames())
    if skipped:
        logging.warning("%s: skipped %d images, such as %s.", path, len(skipped), _shown(skipped))
    return skipped


def _header(examples: Examples, number: int) -> bytes:
    labels = examples.labels
    if not isinstance(labels, LabelRows):
        return HEADER.pack(0, float(labels[number]), number, 0)
    row = labels.take(np.array([number])).dense(len(examples.classes))[0]
    return HEADER.pack(len(row), 0.0, number, 0) + np.nan_to_num(row, nan=-1.0).astype("<f4").tobytes()


def _read(examples: Examples, number: int) -> tuple[bytes, str]:
    """`(image, problem)`, one of them empty."""
    try:
        image = examples.images.read(int(examples.rows[number]))
    except OSError as error:
        return b"", why_not_read(error, if_missing="is gone")
    if not image:
        return b"", "is empty"
    if len(image) > MAX_RECORD_BYTES - HEADER.size - 4 * len(examples.classes):
        return b"", f"has {len(image)} bytes, more than a record can store"
    return image, ""


def _warn_of_columns(examples: Examples) -> None:
    dropped = [
        name
        for name, is_used in (
            ("weights", bool(np.any(examples.weights != 1))),
            ("groups", examples.groups is not None),
        )
        if is_used
    ]
    if dropped:
        logging.warning(
            "%s: a RecordIO file cannot store %s; they are dropped.", examples.origin, " and ".join(dropped)
        )


def _shown(skipped: dict[str, str]) -> str:
    name, problem = next(iter(skipped.items()))
    return f"{name}, which {problem}"
