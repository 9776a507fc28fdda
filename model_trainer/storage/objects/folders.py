"""Folders of an object store that a reader sees completely or not at all, such as checkpoints.

While a folder is written it contains `.partial`, and the one that it replaces is kept as a copy, `.replaced-NAME`. So a
process that is killed at any time leaves the old folder or the new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_trainer.storage.objects.store import ObjectStore

__all__ = ["clear_leftovers", "complete_folders", "write_folder"]

PARTIAL, REPLACED = ".partial", ".replaced-"
MAX_COPY_BYTES = 5 << 30  # that S3 copies in one request
CHUNK_BYTES = 16 << 20

_Files = dict[str, int]  # size by name


def write_folder(store: ObjectStore, folder: str, files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> None:
    """Writes a folder, replacing an existing one."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    contents = _contents(store, parent)
    replaced = f"{REPLACED}{name}"
    if _is_complete(contents.get(name)):
        _copy(store, parent, name, replaced, contents[name])
    store.write(f"{parent}/{name}/{PARTIAL}", [])
    for file in contents.get(name, {}).keys() - {PARTIAL}:
        store.delete(f"{parent}/{name}/{file}")
    for file, chunks in files:
        store.write(f"{parent}/{name}/{file}", chunks)
    store.delete(f"{parent}/{name}/{PARTIAL}")
    store.delete_folder(f"{parent}/{replaced}")


def complete_folders(store: ObjectStore, parent: str, prefix: str) -> dict[str, str]:
    """The complete folders in `parent` whose names start with `prefix`: paths by name."""
    parent, folders = parent.rstrip("/"), dict[str, str]()
    for name, files in sorted(_contents(store, parent).items()):  # "." comes before letters: the new one wins
        if name.removeprefix(REPLACED).startswith(prefix) and _is_complete(files):
            folders[name.removeprefix(REPLACED)] = f"{parent}/{name}"
    return folders


def clear_leftovers(store: ObjectStore, parent: str) -> None:
    """Restores the folders in `parent` that a killed process was replacing, and deletes those that are incomplete."""
    parent = parent.rstrip("/")
    contents = _contents(store, parent)
    for name, files in list(contents.items()):
        original = name.removeprefix(REPLACED)
        if name != original and _is_complete(files) and not _is_complete(contents.get(original)):
            _copy(store, parent, name, original, files)
            contents[original] = files
    for name, files in contents.items():
        if name.startswith(REPLACED) or (PARTIAL in files and not _is_complete(files)):
            store.delete_folder(f"{parent}/{name}")


def _contents(store: ObjectStore, parent: str) -> dict[str, _Files]:
    """The names and sizes of the files in each folder of `parent`, by the folder's name."""
    import obstore

    url, bucket = store.locate(parent)
    start = f"{url.key}/" if url.key else ""
    contents: dict[str, _Files] = defaultdict(dict)
    with bucket.errors(url):
        for page in obstore.list(bucket.store, url.key or None):
            for meta in page:
                name, separator, file = meta["path"].removeprefix(start).partition("/")
                if separator:
                    contents[name][file] = int(meta["size"])
    return dict(contents)


def _is_complete(files: _Files | None) -> bool:
    return bool(files) and PARTIAL not in (files or {})


def _copy(store: ObjectStore, parent: str, source: str, target: str, files: _Files) -> None:
    store.delete_folder(f"{parent}/{target}")
    store.write(f"{parent}/{target}/{PARTIAL}", [])
    for name, size in files.items():
        old, new = f"{parent}/{source}/{name}", f"{parent}/{target}/{name}"
        if size <= MAX_COPY_BYTES:
            store.copy(old, new)
            continue
        with store.open(old) as file:
            store.write(new, iter(partial(file.read, CHUNK_BYTES), b""))
    store.delete(f"{parent}/{target}/{PARTIAL}")
