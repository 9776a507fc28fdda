"""Writes checkpoints atomically, and verifies them when they are read.

A checkpoint is a folder, such as `epoch-00003-step-0000120`, of three files: `state.json`, with the names, dtypes and
shapes of its arrays; `arrays.bin`, their concatenated bytes; and, written last, `hashes.json`, the SHA-256 of both.
The newest two checkpoints are kept; if there is no room for a third, the older one is removed before it is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import ml_dtypes  # noqa: F401 - registers np.dtype("bfloat16")
import numpy as np
from absl import logging

from model_trainer.errors import StorageError
from model_trainer.storage import files
from model_trainer.storage.write_errors import is_full, not_written

__all__ = [
    "MAX_CHECKPOINTS",
    "Checkpoint",
    "checkpoints_in",
    "newest_complete",
    "read_complete",
    "read_newest",
    "write_checkpoint",
]

MAX_CHECKPOINTS = 2

STATE, ARRAYS, HASHES = "state.json", "arrays.bin", "hashes.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after a step.

    Attributes:
        epoch: counted from 0.
        position: the number of completed steps of that epoch.
        state: JSON types.
        arrays: arrays by name.
    """

    epoch: int
    position: int
    state: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"epoch-{self.epoch:05d}-step-{self.position:07d}"


class _Damaged(Exception):
    """A checkpoint on disk is damaged; the message gives the reason."""


def write_checkpoint(folder: PurePath, checkpoint: Checkpoint) -> PurePath:
    """Writes a checkpoint into `folder`, completely or not at all, and removes all but it and the previous one.

    Raises:
        StorageError: it cannot be written, for example for lack of space; the newest complete one is kept.
    """
    target = folder / checkpoint.name
    try:
        files.make_folder(folder, parents=False)
        files.clear_leftovers(folder)
        try:
            files.write_folder(target, _files(checkpoint))
        except OSError as error:
            if not is_full(error) or not _make_room(folder):
                raise
            files.write_folder(target, _files(checkpoint))
    except StorageError:
        raise
    except OSError as error:
        num_bytes = sum(array.nbytes for array in checkpoint.arrays.values())
        raise not_written(target, error, num_bytes) from error
    files.clear_leftovers(folder)
    # Later checkpoints of the run are damaged, counted in other steps, or were rolled back.
    earlier = [path for path in checkpoints_in(folder) if path.name < target.name]
    _remove(path for path in checkpoints_in(folder) if path not in [*earlier[1 - MAX_CHECKPOINTS :], target])
    return target


def read_newest(folder: PurePath) -> Checkpoint | None:
    """The newest complete checkpoint; None if there is none."""
    newest = next(read_complete(folder), None)
    if newest is None and checkpoints_in(folder):
        logging.warning("None of the checkpoints in %s is complete.", folder)
    return newest


def read_complete(folder: PurePath) -> Iterator[Checkpoint]:
    """Yields the complete checkpoints, newest first; logs a warning for each damaged one."""
    for path in reversed(checkpoints_in(folder)):
        try:
            yield _read(path)
        except _Damaged as reason:
            logging.warning("The checkpoint %s is damaged (%s).", path, reason)


def newest_complete(folder: PurePath) -> PurePath | None:
    """The folder of the newest complete checkpoint, which is read and verified; None if there is none."""
    for path in reversed(checkpoints_in(folder)):
        with contextlib.suppress(_Damaged):
            _read(path)
            return path
    return None


def checkpoints_in(folder: PurePath) -> list[PurePath]:
    """The folders of the checkpoints in `folder`, oldest first, without verifying them."""
    folders = sorted(files.complete_folders(folder, "epoch-").items())
    return [path for name, path in folders if re.fullmatch(r"epoch-\d+-step-\d+", name)]


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, Iterable[bytes | memoryview]]]:
    """Yields the files of a checkpoint by name; the last one holds the hashes of the others."""
    entries = [[name, str(array.dtype), list(array.shape)] for name, array in checkpoint.arrays.items()]
    state = {"epoch": checkpoint.epoch, "position": checkpoint.position, "arrays": entries, **checkpoint.state}
    # Viewed as bytes by NumPy, because Python's memoryview does not support bfloat16.
    rows = (np.ascontiguousarray(array).reshape(-1) for array in checkpoint.arrays.values() if array.nbytes)
    arrays = (row.view(np.uint8).data for row in rows)
    digests = {ARRAYS: hashlib.sha256(), STATE: hashlib.sha256()}

    def hashed(name: str, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for chunk in chunks:
            digests[name].update(chunk)
            yield chunk

    yield ARRAYS, hashed(ARRAYS, arrays)
    yield STATE, hashed(STATE, [json.dumps(state).encode()])
    yield HASHES, [json.dumps({name: digest.hexdigest() for name, digest in digests.items()}).encode()]


def _make_room(folder: PurePath) -> bool:
    """Removes all checkpoints but the newest complete one; returns whether any was removed."""
    checkpoints = checkpoints_in(folder)
    newest = newest_complete(folder) if len(checkpoints) > 1 else None
    if newest is None:
        return False
    _remove(path for path in checkpoints if path != newest)
    return True


def _remove(paths: Iterable[PurePath]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            files.delete_folder(path)


def _read(path: PurePath) -> Checkpoint:
    try:
        hashes = json.loads(files.read(path / HASHES))
        content = {name: files.read(path / name) for name in (ARRAYS, STATE)}
    except StorageError:
        raise
    except OSError as error:
        raise _Damaged(f"{error.filename}: {error.strerror}") from None
    except ValueError:
        raise _Damaged(f"{HASHES} is not JSON") from None
    for name, data in content.items():
        if not isinstance(hashes, Mapping) or hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise _Damaged(f"the content of {name} is not what was written")
    try:
        state = json.loads(content[STATE])
        arrays = dict(_arrays(state.pop("arrays"), content[ARRAYS]))
        return Checkpoint(state.pop("epoch"), state.pop("position"), state, arrays)
    except (KeyError, TypeError, ValueError):  # for example an array that extends beyond the end
        raise _Damaged(f"{STATE} does not describe {ARRAYS}") from None


def _arrays(entries: list[tuple[str, str, list[int]]], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    start = 0
    for name, dtype, shape in entries:
        count = int(np.prod(shape, dtype=np.int64))
        yield name, np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
        start += count * np.dtype(dtype).itemsize
