"""Checkpoints on the disk: each whole or absent, and checked before it is believed.

A checkpoint is a folder `epoch-00003-step-0000120` of two files: `state.json`, with the names, dtypes and shapes of its
arrays, and `arrays.bin`, their bytes one after the other. `hashes.json` holds the SHA-256 of both. All is written into
a folder aside, synced, and renamed; the last two are kept. Where there is no room for a third, the older goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from model_trainer.storage.local import is_full, not_written, sync_folder

__all__ = ["KEPT", "Checkpoint", "checkpoints_in", "newest_whole", "read_newest", "read_whole", "write_checkpoint"]

KEPT = 2

REPLACED = ".replaced-"
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


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint into `folder`, whole or not at all, and removes all but it and the one before.

    Raises:
        StorageError: it cannot be written, such as for lack of space; the last good one is untouched.
    """
    target = folder / checkpoint.name
    aside = folder / f".partial-{os.getpid()}-{checkpoint.name}"
    try:
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        try:
            _write(aside, checkpoint)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not is_full(error) or not _make_room(folder):
                raise
            _write(aside, checkpoint)
        if target.exists():  # of a run that went back to it, or to one before
            os.replace(target, folder / f"{REPLACED}{checkpoint.name}")
        os.replace(aside, target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        num_bytes = sum(array.nbytes for array in checkpoint.arrays.values())
        raise not_written(target, error, num_bytes) from error
    remove_leftovers(folder)
    # What comes after it in the run is damaged, counted in other steps, or what training went back from.
    earlier = [path for path in checkpoints_in(folder) if path.name < target.name]
    _remove(path for path in checkpoints_in(folder) if path not in [*earlier[1 - KEPT :], target])
    return target


def read_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none."""
    newest = next(read_whole(folder), None)
    if newest is None and checkpoints_in(folder):
        logging.warning("None of the checkpoints in %s is whole.", folder)
    return newest


def read_whole(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints that are whole, the newest first; a damaged one is named in the log."""
    for path in reversed(checkpoints_in(folder)):
        try:
            yield _read(path)
        except _Damaged as reason:
            logging.warning("The checkpoint %s is damaged (%s).", path, reason)


def newest_whole(folder: Path) -> Path | None:
    """Where the newest checkpoint lies that is whole; reads it all."""
    for path in reversed(checkpoints_in(folder)):
        with contextlib.suppress(_Damaged):
            _read(path)
            return path
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the oldest first.

    Also one that still has another name because a process was killed before the one that replaces it had its own. It is
    only renamed when the next one is written: whoever reads may not hold the folder.
    """
    found = {path.name.removeprefix(REPLACED): path for path in folder.glob(f"{REPLACED}*")}
    found |= {path.name: path for path in folder.glob("epoch-*-step-*")}
    return [path for _, path in sorted(found.items())]


def remove_leftovers(folder: Path) -> None:
    """Removes what a process that was killed inside a save left behind."""
    _put_back(folder)
    _remove([*folder.glob(".partial-*"), *folder.glob(f"{REPLACED}*")])


def _put_back(folder: Path) -> None:
    """Gives a checkpoint its name again where a process was killed before the one that replaces it had it."""
    for path in folder.glob(f"{REPLACED}*"):
        name = path.name.removeprefix(REPLACED)
        if not (folder / name).exists():
            os.replace(path, folder / name)


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the files of a checkpoint into a new folder, and syncs them."""
    folder.mkdir()
    listed = [[name, str(array.dtype), list(array.shape)] for name, array in checkpoint.arrays.items()]
    state = {"epoch": checkpoint.epoch, "position": checkpoint.position, "arrays": listed, **checkpoint.state}
    arrays = (np.ascontiguousarray(array).data.cast("B") for array in checkpoint.arrays.values() if array.size)
    hashes = {
        ARRAYS: _write_file(folder / ARRAYS, arrays),
        STATE: _write_file(folder / STATE, [json.dumps(state).encode()]),
    }
    _write_file(folder / HASHES, [json.dumps(hashes).encode()])
    sync_folder(folder)


def _make_room(folder: Path) -> bool:
    """Removes all checkpoints but the newest that is whole; whether there was something to remove."""
    there = checkpoints_in(folder)
    kept = newest_whole(folder) if len(there) > 1 else None
    if kept is None:
        return False
    _remove(path for path in there if path != kept)
    return True


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _write_file(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Writes and syncs a file; returns its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _read(path: Path) -> Checkpoint:
    try:
        hashes = json.loads((path / HASHES).read_bytes())
        content = {name: (path / name).read_bytes() for name in (ARRAYS, STATE)}
    except OSError as error:
        raise _Damaged(f"{error.filename}: {error.strerror}") from None
    except ValueError:
        raise _Damaged(f"{HASHES} is no JSON") from None
    for name, data in content.items():
        if not isinstance(hashes, Mapping) or hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise _Damaged(f"the content of {name} is not what was written")
    state = json.loads(content[STATE])
    arrays = dict(_arrays(state.pop("arrays"), content[ARRAYS]))
    return Checkpoint(state.pop("epoch"), state.pop("position"), state, arrays)


def _arrays(listed: list[tuple[str, str, list[int]]], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    start = 0
    for name, dtype, shape in listed:
        count = int(np.prod(shape, dtype=np.int64))
        yield name, np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
        start += count * np.dtype(dtype).itemsize
