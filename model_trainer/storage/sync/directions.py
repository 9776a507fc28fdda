"""Chooses the transfer for two paths: an upload, a download, or a copy between two stores."""

from __future__ import annotations

from collections.abc import Iterable

from model_trainer.errors import ConfigError
from model_trainer.storage import files
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import SCHEMES, check_url, parse_url
from model_trainer.storage.sync.between import Between
from model_trainer.storage.sync.download import Download
from model_trainer.storage.sync.transfer import Transfer
from model_trainer.storage.sync.upload import Upload

__all__ = ["transfer_between"]


def transfer_between(source: str, target: str) -> Transfer:
    """The transfer from the folder `source` to the folder `target`, after both are checked.

    Raises:
        ConfigError: neither is in an object store, the source is missing, one is not a folder, or one contains the
            other.
    """
    if not source or not target:
        raise ConfigError(f"Path {'A' if not source else 'B'} is empty. Is a variable of the shell not set?")
    check_url(source)
    check_url(target)
    from_store, to_store = _store_of(source), _store_of(target)
    if from_store is None and to_store is None:
        raise ConfigError(
            f"{source} and {target} are both on this machine. Expected at least one URL of an object store, such as "
            "s3://bucket/folder; cp -r or rsync copies between folders."
        )
    _check_folder(source, is_source=True)
    if to_store is None:
        assert from_store is not None
        _check_folder(target, is_source=False)
        return Download(from_store, source, target)
    if from_store is None:
        return Upload(source, to_store, target)
    one, other = parse_url(source), parse_url(target)
    if one.root == other.root and _contains(one.key, other.key):
        raise ConfigError(f"{source} and {target} are the same folder, or one contains the other.")
    return Between(from_store, source, to_store, target)


def _store_of(path: str) -> ObjectStore | None:
    scheme, separator, _ = path.partition("://")
    if not separator:
        return None
    storage = files.storage_of(path)
    if not isinstance(storage, ObjectStore):
        raise ConfigError(f"{path} has the scheme {scheme!r}. Expected a path, or one of {_schemes(SCHEMES)}.")
    return storage


def _schemes(schemes: Iterable[str]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)


def _check_folder(path: str, is_source: bool) -> None:
    if "://" in path or files.is_folder(path):
        return
    if files.exists(path):
        raise ConfigError(f"{path} is a file; expected a folder.")
    if is_source:
        raise ConfigError(f"There is no folder {path}.")


def _contains(one: str, other: str) -> bool:
    one, other = f"{one}/".lstrip("/"), f"{other}/".lstrip("/")
    return one.startswith(other) or other.startswith(one)
