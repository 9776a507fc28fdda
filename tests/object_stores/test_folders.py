"""A folder of several objects is seen completely or not at all, wherever its writer is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from model_trainer.storage import files
from model_trainer.storage.objects.store import ObjectStore
from tests.object_stores.conftest import Weed

OLD = {"arrays.bin": b"old arrays", "hashes.json": b"old hashes"}
NEW = {"arrays.bin": b"new arrays", "state.json": b"{}", "hashes.json": b"new hashes"}


class Killed(BaseException):
    pass


def write(folder: str, content: dict[str, bytes]) -> None:
    files.write_folder(folder, [(name, [data]) for name, data in content.items()])


def content_of(parent: str) -> dict[str, dict[str, bytes]]:
    """The complete folders, by the names of their files."""
    folders = files.complete_folders(files.as_path(parent), "epoch-")
    return {name: {file: files.read(path / file) for file in files.names_in(path)} for name, path in folders.items()}


def keys(weed: Weed, parent: str) -> list[str]:
    """The names of all objects below a folder, as another program sees them."""
    bucket, _, key = parent.removeprefix("s3://").partition("/")
    found = weed.client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/").get("Contents", [])
    return [each["Key"].removeprefix(f"{key}/") for each in found]


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """Ends the process's writes before the `number`th request that changes something; returns whether it came."""
    calls: list[str] = []

    def counted(name: str) -> None:
        original = getattr(ObjectStore, name)

        def method(self: ObjectStore, *arguments: Any) -> Any:
            calls.append(name)
            if len(calls) >= number:
                raise Killed
            return original(self, *arguments)

        monkeypatch.setattr(ObjectStore, name, method)

    for name in ("write", "delete", "delete_folder", "copy"):
        counted(name)
    return lambda: len(calls) >= number


@pytest.mark.long
def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(bucket: str, s3: Weed) -> None:
    seen = []
    for number in range(1, 40):
        parent = f"{bucket}/{number}"
        write(f"{parent}/epoch-1", OLD)
        with pytest.MonkeyPatch.context() as patch:
            came = killed_at(patch, number)
            with contextlib.suppress(Killed):
                write(f"{parent}/epoch-1", NEW)
        left = content_of(parent)["epoch-1"]
        assert left in (OLD, NEW)
        files.clear_leftovers(parent)
        assert content_of(parent)["epoch-1"] == left
        assert keys(s3, parent) == [f"epoch-1/{name}" for name in sorted(left)]
        seen.append(left)
        if not came():
            break
    assert seen[0] == OLD
    assert seen[-1] == NEW


@pytest.mark.long
def test_clearing_up_can_be_killed_too(bucket: str) -> None:
    parent = f"{bucket}/checkpoints"
    for number in range(1, 40):
        write(f"{parent}/epoch-1", OLD)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, 9)
            with pytest.raises(Killed):
                write(f"{parent}/epoch-1", NEW)
        with pytest.MonkeyPatch.context() as patch:
            came = killed_at(patch, number)
            with contextlib.suppress(Killed):
                files.clear_leftovers(parent)
        assert content_of(parent) == {"epoch-1": OLD}
        files.clear_leftovers(parent)
        assert content_of(parent) == {"epoch-1": OLD}
        if not came():
            return
    pytest.fail("it never came to its end")


def test_an_incomplete_new_folder_is_absent(bucket: str, s3: Weed) -> None:
    write(f"{bucket}/c/epoch-1", OLD)

    def broken() -> Any:
        yield "arrays.bin", [b"x"]
        raise Killed

    with pytest.raises(Killed):
        files.write_folder(f"{bucket}/c/epoch-2", broken())
    assert content_of(f"{bucket}/c") == {"epoch-1": OLD}
    files.clear_leftovers(f"{bucket}/c")
    assert keys(s3, f"{bucket}/c") == ["epoch-1/arrays.bin", "epoch-1/hashes.json"]


def test_only_folders_of_the_prefix_are_given(bucket: str) -> None:
    write(f"{bucket}/c/epoch-1", OLD)
    write(f"{bucket}/c/other", OLD)
    files.write(f"{bucket}/c/epoch-file", b"")
    assert list(content_of(f"{bucket}/c")) == ["epoch-1"]
