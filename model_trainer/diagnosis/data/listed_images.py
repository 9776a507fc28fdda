"""Reads which images a user wants to move: a table such as the `label_issues.csv` of a training with `--folds`."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from model_trainer.diagnosis.data.quarantine import moved_before
from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.errors import DataError
from model_trainer.storage import files

__all__ = ["read_listed_images"]

_COLUMNS = ("path", "image")  # of label_issues.csv, and of predictions.csv


def read_listed_images(table: str, splits: Sequence[DataSplit], folder: Path) -> dict[int, str]:
    """Finds the images that a CSV lists, before any of them is moved.

    Args:
        table: with a column `path`, or `image`; its column `reason` is logged with each move.
        splits: the data set.
        folder: to which the images are moved; an image that was moved there before is ignored.

    Returns:
        The reason to move each image, by its index among the images of all splits.

    Raises:
        DataError: the table cannot be read or has no such column, or an image is missing or outside of the data set.
    """
    listed: dict[str, tuple[int, str, str]] = {}  # by absolute path: line, path as it is listed, reason
    try:
        with files.open_text(table, "utf-8-sig", "surrogateescape", newline="") as file:
            rows = csv.DictReader(file, restval="")
            column = next((name for name in _COLUMNS if name in (rows.fieldnames or ())), None)
            if column is None:
                columns = ", ".join(repr(name) for name in rows.fieldnames or ()) or "missing"
                raise DataError(
                    f"{table} should have a column 'path', as the label_issues.csv of a training with --folds; its "
                    f"columns are {columns}."
                )
            for row in rows:
                path = row[column]
                if not path:
                    raise DataError(f"{table} line {rows.line_num}: the column {column!r} is empty.")
                reason = row.get("reason") or f"is listed in {table}"
                listed.setdefault(os.path.abspath(path), (rows.line_num, path, reason))
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}.") from error
    index_of, first = {}, 0
    for split in splits:
        for index, name in enumerate(split.examples.names()):
            if (path := os.path.abspath(name)) in listed:
                index_of[path] = first + index
        first += len(split.examples)
    _check_all_found(table, listed, index_of.keys() | moved_before(folder), splits)
    return {index: listed[path][2] for path, index in sorted(index_of.items(), key=lambda item: item[1])}


def _check_all_found(
    table: str, listed: dict[str, tuple[int, str, str]], known: set[str], splits: Sequence[DataSplit]
) -> None:
    for absolute, (line, path, _) in listed.items():
        if absolute in known:
            continue
        origins = " and ".join(split.examples.origin for split in splits)
        if files.exists(path):
            raise DataError(
                f"{table} line {line}: {path} is not an image of {origins}. Nothing was moved. Name the folder that "
                "contains all listed images, such as data for data/train and data/val; or remove the line."
            )
        raise DataError(
            f"{table} line {line}: there is no file {path}. Nothing was moved. Paths are relative to the current "
            "folder: run the command where the training ran, or remove the line."
        )
