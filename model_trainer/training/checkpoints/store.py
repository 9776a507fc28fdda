"""Checkpoints: each whole or absent, and checked before it is believed.

A checkpoint is a folder `epoch-00003-step-0000120` of two files: `state.json`, with the names, dtypes and shapes of its
arrays, and `arrays.bin`, their bytes one after the other. `hashes.json`, written last, holds the SHA-256 of both. The
last two are kept. Where there is no room for a third, the older goes first.
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

import ml_dtypes  # noqa: F401 - np.dtype("bfloat16") is known from here on
import numpy as np
from absl import logging

from model_trainer.storage import files
from model_trainer.storage.trouble import is_full, not_written

__all__ = [
    "KEPT",
    "Checkpoint",
    "checkpoints_in",
    "newest_complete",
    "read_complete",
    "read_newest",
    "write_checkpoint",
]

KEPT = 2

STATE, ARRAYS, HASHES = "state.json", "arrays.bin", "hashes.json"


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of a step.

    Attributes:
        epoch: counted from 0.
        position: steps of that epoch that are done; 0 before its first.
        state: plain JSON types.
        arrays: by name.
    """

    epoch: int
    position: int
    state: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"epoch-{self.epoch:05d}-step-{self.position:07d}"


class _Damaged(Exception):
    """What is wrong with a checkpoint on the disk."""


def write_checkpoint(folder: PurePath, checkpoint: Checkpoint) -> PurePath:
    """Writes a checkpoint into `folder`, whole or not at all, and removes all but it and the one before.

    Raises:
        StorageError: it cannot be written, such as for lack of space; the last good one is untouched.
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
    except OSError as error:
        num_bytes = sum(array.nbytes for array in checkpoint.arrays.values())
        raise not_written(target, error, num_bytes) from error
    files.clear_leftovers(folder)
    # What comes after it in the run is damaged, counted in other steps, or what training went back from.
    earlier = [path for path in checkpoints_in(folder) if path.name < target.name]
    _remove(path for path in checkpoints_in(folder) if path not in [*earlier[1 - KEPT :], target])
    return target


def read_newest(folder: PurePath) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none."""
    newest = next(read_complete(folder), None)
    if newest is None and checkpoints_in(folder):
        logging.warning("None of the checkpoints in %s is whole.", folder)
    return newest


def read_complete(folder: PurePath) -> Iterator[Checkpoint]:
    """The checkpoints that are whole, the newest first; a damaged one is named in the log."""
    for path in reversed(checkpoints_in(folder)):
        try:
            yield _read(path)
        except _Damaged as reason:
            logging.warning("The checkpoint %s is damaged (%s).", path, reason)


def newest_complete(folder: PurePath) -> PurePath | None:
    """Where the newest checkpoint lies that is whole; reads it all."""
    for path in reversed(checkpoints_in(folder)):
        with contextlib.suppress(_Damaged):
            _read(path)
            return path
    return None


def checkpoints_in(folder: PurePath) -> list[PurePath]:
    """The checkpoints of a folder, the oldest first."""
    found = sorted(files.complete_folders(folder, "epoch-").items())
    return [path for name, path in found if re.fullmatch(r"epoch-\d+-step-\d+", name)]


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, Iterable[bytes | memoryview]]]:
    """The files of a checkpoint; the last one says what the others must hold."""
    listed = [[name, str(array.dtype), list(array.shape)] for name, array in checkpoint.arrays.items()]
    state = {"epoch": checkpoint.epoch, "position": checkpoint.position, "arrays": listed, **checkpoint.state}
    # Viewed as bytes by NumPy, since Python's memoryview knows no bfloat16.
    rows = (np.ascontiguousarray(array).reshape(-1) for array in checkpoint.arrays.values() if array.nbytes)
    arrays = (row.view(np.uint8).data for row in rows)
    digests = {ARRAYS: hashlib.sha256(), STATE: hashlib.sha256()}

    def hashed(name: str, parts: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for part in parts:
            digests[name].update(part)
            yield part

    yield ARRAYS, hashed(ARRAYS, arrays)
    yield STATE, hashed(STATE, [json.dumps(state).encode()])
    yield HASHES, [json.dumps({name: digest.hexdigest() for name, digest in digests.items()}).encode()]


def _make_room(folder: PurePath) -> bool:
    """Removes all checkpoints but the newest that is whole; whether there was something to remove."""
    there = checkpoints_in(folder)
    kept = newest_complete(folder) if len(there) > 1 else None
    if kept is None:
        return False
    _remove(path for path in there if path != kept)
    return True


def _remove(paths: Iterable[PurePath]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            files.delete_folder(path)


def _read(path: PurePath) -> Checkpoint:
    try:
        hashes = json.loads(files.read(path / HASHES))
        content = {name: files.read(path / name) for name in (ARRAYS, STATE)}
    except OSError as error:
        raise _Damaged(f"{error.filename}: {error.strerror}") from None
    except ValueError:
        raise _Damaged(f"{HASHES} is no JSON") from None
    for name, data in content.items():
        if not isinstance(hashes, Mapping) or hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise _Damaged(f"the content of {name} is not what was written")
    try:
        state = json.loads(content[STATE])
        arrays = dict(_arrays(state.pop("arrays"), content[ARRAYS]))
        return Checkpoint(state.pop("epoch"), state.pop("position"), state, arrays)
    except (KeyError, TypeError, ValueError):  # such as an array that reaches beyond the end
        raise _Damaged(f"{STATE} does not describe {ARRAYS}") from None


def _arrays(listed: list[tuple[str, str, list[int]]], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    start = 0
    for name, dtype, shape in listed:
        count = int(np.prod(shape, dtype=np.int64))
        yield name, np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
        start += count * np.dtype(dtype).itemsize
