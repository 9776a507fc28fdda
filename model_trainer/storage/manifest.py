"""`manifest.json` of a run: the files that it consists of, written after all of them.

It shows a reader of a run in an object store, or of a copy of a run, whether the run is complete. While the run trains,
and after an interruption, it contains `"finished": false`. A run without a manifest was trained on a local disk.

```json
{"version": 1, "finished": true, "files": {"final_model.hdf5": {"bytes": 16543208, "sha256": "9f86d0..."}}}
```

The manifest of an unfinished run also identifies the process that trains it, which alone may replace the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

from absl import logging

from model_trainer.errors import DataError, StorageError
from model_trainer.storage import files

__all__ = ["MANIFEST", "check_finished", "note_unfinished", "update_manifest", "write_manifest"]

MANIFEST = "manifest.json"
VERSION = 1
NOT_LISTED = (MANIFEST, "checkpoints")  # only `--resume` reads checkpoints, and they have hashes of their own
CHUNK_BYTES = 64 << 20
NUM_THREADS = 16
_RANDOM = uuid.uuid4().hex


def note_unfinished(folder: PurePath) -> None:
    """Notes that a run is being trained; on the local disk only if a manifest exists already, as in a copied run.

    Raises:
        StorageError: it cannot be written.
    """
    if _has_manifest(folder):
        _write(folder, {"version": VERSION, "finished": False, "process": _process(), "files": {}})


def write_manifest(folder: PurePath, *, by_any: bool = False) -> None:
    """Notes that a run is finished, with all its files; on the local disk only if there is a manifest already.

    Does nothing, with a warning, for a run that another process continues, or has begun to continue.

    Args:
        folder: the output folder.
        by_any: whether this process may write it although another one has trained the run.

    Raises:
        StorageError: the manifest cannot be written, or one of the files cannot be read.
    """
    if not _has_manifest(folder):
        return
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(files.lock(folder / "logs") if "://" in str(folder) else contextlib.nullcontext())
            owner = _process() if by_any else _read(folder).get("process", _process())
        except BlockingIOError:
            owner = ""
        if owner != _process():
            logging.warning("Another process continues %s, which is not finished until that one is.", folder)
            return
        _write(folder, {"version": VERSION, "finished": True, "files": _described(folder, _paths(folder, ""))})


def update_manifest(folder: PurePath, *names: str) -> None:
    """Adds to the manifest of a finished run what was written afterwards; does nothing for an unfinished run.

    Args:
        folder: the output folder.
        names: of the files and folders in `folder` that were written.
    """
    if not _read(folder).get("finished"):
        return
    changed = _described(folder, sorted({path for name in names for path in _paths(folder, name)}))
    manifest = _read(folder)  # reading the files took a while, in which the run may have been continued
    if manifest.get("finished"):
        same = {path: each for path, each in manifest["files"].items() if not _is_in(path, names)}
        _write(folder, {**manifest, "files": same | changed})


def check_finished(folder: PurePath, model_file: PurePath | None = None, preferred: Sequence[str] = ()) -> None:
    """Checks that a run is finished; a run without a manifest passes.

    Args:
        folder: the output folder.
        model_file: a file in it whose size and SHA-256 should be those in the manifest.
        preferred: the names of files that would be used instead of `model_file`, but are missing.

    Raises:
        DataError: it is not finished, or the file is not the one that was written.
        StorageError: its storage cannot be read.
    """
    manifest = _read(folder)
    if not manifest:
        return
    if not manifest.get("finished"):
        hint = "" if model_file is None else f" To use a model as it is now, name its file: {model_file}"
        raise DataError(
            f"{folder} is not finished, according to its {MANIFEST}: it is being trained, or its training was "
            f"interrupted, and --resume continues it; or it was copied meanwhile.{hint}"
        )
    if model_file is None:
        return
    for name in preferred:
        if name in manifest["files"]:
            raise DataError(
                f"{folder / name} is missing, but listed in {MANIFEST}: the run was not copied completely. Copy it "
                f"again. To use another model, name its file: {model_file}"
            )
    listed, info = manifest["files"].get(model_file.name), files.info(model_file)
    if listed is None or info is None:
        return
    if info.size != listed["bytes"]:
        raise DataError(
            f"{model_file} has {info.size:,} bytes, but {listed['bytes']:,} according to {folder / MANIFEST}: it was "
            "not copied completely, or was replaced. Copy the run again."
        )
    written = files.info(folder / MANIFEST)
    is_older = written is not None and info.changed_ns < written.changed_ns  # unchanged: needs no hash
    if not is_older and _describe(model_file)["sha256"] != listed.get("sha256"):
        raise DataError(
            f"{model_file} does not have the SHA-256 in {folder / MANIFEST}: it was replaced after the run was "
            f"finished. Copy the run again. To use the model as it is now, name its file: {model_file}"
        )


def _process() -> str:
    return f"{_RANDOM}-{os.getpid()}"


def _has_manifest(folder: PurePath) -> bool:
    return "://" in str(folder) or files.exists(folder / MANIFEST)


def _read(folder: PurePath) -> dict[str, Any]:
    """The content of a manifest; empty if there is none."""
    try:
        content = json.loads(files.read_text(folder / MANIFEST))
    except StorageError:
        raise
    except OSError:
        return {}
    except ValueError:
        content = None
    listed = content.get("files") if isinstance(content, Mapping) else None
    if not isinstance(listed, Mapping) or not all(
        isinstance(each, Mapping) and isinstance(each.get("bytes"), int) for each in listed.values()
    ):
        raise DataError(f"{folder / MANIFEST} is damaged. Copy the run again, or delete this file if it is complete.")
    assert isinstance(content, Mapping)
    return {**content}


def _write(folder: PurePath, content: dict[str, Any]) -> None:
    files.write_text(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _paths(folder: PurePath, inside: str) -> list[str]:
    """The files of a run, or those in `inside`, a file or folder of it: their paths below `folder`, sorted."""
    if inside and not files.is_folder(folder / inside):
        return [inside] if files.is_file(folder / inside) else []
    return sorted(_walk(folder, inside))


def _walk(folder: PurePath, inside: str) -> Iterator[str]:
    for entry in files.scan(folder / inside if inside else folder):
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_dir():
            if path not in NOT_LISTED and not entry.name.startswith("."):
                yield from _walk(folder, path)
        elif path not in NOT_LISTED and not entry.name.startswith("."):
            yield path


def _described(folder: PurePath, paths: list[str]) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return dict(zip(paths, threads.map(lambda path: _describe(folder / path), paths), strict=True))


def _describe(path: PurePath) -> dict[str, Any]:
    info, digest = files.info(path), hashlib.sha256()
    size = info.size if info is not None else 0
    for start in range(0, size, CHUNK_BYTES):
        digest.update(files.read_range(path, start, min(CHUNK_BYTES, size - start)))
    return {"bytes": size, "sha256": digest.hexdigest()}


def _is_in(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in names)
