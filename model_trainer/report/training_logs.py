"""Reads what training logged: history.csv, logs/metrics.jsonl, logs/train.log and bad_images.csv.

Any of them may be missing, or still be written: an incomplete last line is left out.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from pathlib import PurePath
from typing import Any

from model_trainer.errors import DataError, StorageError
from model_trainer.report.json_files import MAX_TABLE_BYTES, MAX_TEXT, RESTORE, shortened
from model_trainer.storage import files
from model_trainer.storage.read import read_end, read_limited

__all__ = ["read_bad_images", "read_history", "read_steps", "read_warnings"]

MAX_HISTORY_BYTES = 32_000_000  # a hundred thousand epochs
MAX_LOG_BYTES = 4_000_000  # the end of a log; its beginning is left out
STEP_COLUMNS = ("step", "loss", "images_per_second")


def read_bad_images(path: PurePath) -> list[tuple[str, str]]:
    """The paths and reasons of bad_images.csv."""
    return [(shortened(row["image"]), shortened(row.get("reason") or "")) for row in _csv_rows(path, "image")]


def read_history(path: PurePath) -> list[dict[str, float]]:
    """The rows of history.csv that have an epoch, with NaN for values that are not numbers."""
    rows = []
    for row in _csv_rows(path, "epoch", MAX_HISTORY_BYTES):
        numbers = {shortened(name): _number(value) for name, value in row.items() if isinstance(name, str)}
        if abs(numbers["epoch"]) < 2**53:  # False also for NaN
            rows.append(numbers)
    return rows


def read_steps(path: PurePath) -> list[dict[str, float | None]]:
    """The rows of metrics.jsonl about steps, only the last ones of a very long file; None for what is not a number."""
    rows = []
    for line in _last_lines(path, MAX_TABLE_BYTES):
        if '"kind": "step"' not in line:  # rows of observers are long and not needed
            continue
        with contextlib.suppress(ValueError, RecursionError):  # the last line may be incomplete
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int) and abs(row["step"]) < 2**53:
                rows.append({name: _finite(row.get(name)) for name in STEP_COLUMNS})
    return rows


def read_warnings(path: PurePath) -> list[str]:
    """The first line of each warning and error, without time; unreadable images have a file of their own."""
    lines = [line.split(" ", 3) for line in _last_lines(path, MAX_LOG_BYTES)]
    messages = [parts[3] for parts in lines if len(parts) == 4 and parts[2] in ("WARNING", "ERROR")]
    kept = [each for each in messages if not each.endswith(("it is skipped.", "bad_images.csv."))]
    return [shortened(each, MAX_TEXT) for each in dict.fromkeys(kept)]


def _text(path: PurePath, max_bytes: int) -> str:
    """The content of a text file; empty if it is missing.

    Raises:
        DataError: it is not a regular file, or too large, or cannot be read.
    """
    if not files.exists(path):
        return ""
    try:
        return read_limited(path, max_bytes).decode(errors="replace")
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. {RESTORE}") from error


def _last_lines(path: PurePath, max_bytes: int) -> list[str]:
    """The lines of a log, or of its end; empty if it is missing or cannot be read."""
    with contextlib.suppress(OSError):
        return read_end(path, max_bytes).decode(errors="replace").splitlines()
    return []


def _csv_rows(path: PurePath, required: str, max_bytes: int = MAX_TABLE_BYTES) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path, max_bytes), newline=None)))
    except csv.Error as error:
        raise DataError(f"{path} is damaged: {error}. {RESTORE}") from error
    return [row for row in rows if row.get(required)]


def _number(text: str | None) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]  # None is a TypeError
    return math.nan


def _finite(value: Any) -> float | None:
    """The value as float; None if it is not a number, or an integer that no float can hold."""
    is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)
    return float(value) if is_number else None
