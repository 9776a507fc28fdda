"""A folder of several objects is visible completely or not at all, whenever its writer is killed."""

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
    """The contents of the files in each complete folder: `{folder name: {file name: content}}`."""
    folders = files.complete_folders(files.as_path(parent), "epoch-")
    return {name: {file: files.read(path / file) for file in files.names_in(path)} for name, path in folders.items()}


def keys(weed: Weed, parent: str) -> list[str]:
    """The keys of all objects in a folder, relative to it, as boto3 lists them."""
    bucket, _, key = parent.removeprefix("s3://").partition("/")
    objects = weed.client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/").get("Contents", [])
    return [each["Key"].removeprefix(f"{key}/") for each in objects]


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """Raises `Killed` from the `number`th changing request on; the result tells whether that request was reached."""
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
    results = []
    for number in range(1, 40):
        parent = f"{bucket}/{number}"
        write(f"{parent}/epoch-1", OLD)
        with pytest.MonkeyPatch.context() as patch:
            was_killed = killed_at(patch, number)
            with contextlib.suppress(Killed):
                write(f"{parent}/epoch-1", NEW)
        result = content_of(parent)["epoch-1"]
        assert result in (OLD, NEW)
        files.clear_leftovers(parent)
        assert content_of(parent)["epoch-1"] == result
        assert keys(s3, parent) == [f"epoch-1/{name}" for name in sorted(result)]
        results.append(result)
        if not was_killed():
            break
    assert results[0] == OLD
    assert results[-1] == NEW


@pytest.mark.long
def test_a_killed_cleanup_leaves_the_old_folder(bucket: str) -> None:
    parent = f"{bucket}/checkpoints"
    for number in range(1, 40):
        write(f"{parent}/epoch-1", OLD)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, 9)
            with pytest.raises(Killed):
                write(f"{parent}/epoch-1", NEW)
        with pytest.MonkeyPatch.context() as patch:
            was_killed = killed_at(patch, number)
            with contextlib.suppress(Killed):
                files.clear_leftovers(parent)
        assert content_of(parent) == {"epoch-1": OLD}
        files.clear_leftovers(parent)
        assert content_of(parent) == {"epoch-1": OLD}
        if not was_killed():
            return
    pytest.fail("clear_leftovers was killed every time")


def test_an_incomplete_new_folder_is_not_listed(bucket: str, s3: Weed) -> None:
    write(f"{bucket}/c/epoch-1", OLD)

    def broken() -> Any:
        yield "arrays.bin", [b"x"]
        raise Killed

    with pytest.raises(Killed):
        files.write_folder(f"{bucket}/c/epoch-2", broken())
    assert content_of(f"{bucket}/c") == {"epoch-1": OLD}
    files.clear_leftovers(f"{bucket}/c")
    assert keys(s3, f"{bucket}/c") == ["epoch-1/arrays.bin", "epoch-1/hashes.json"]


def test_only_folders_with_the_prefix_are_listed(bucket: str) -> None:
    write(f"{bucket}/c/epoch-1", OLD)
    write(f"{bucket}/c/other", OLD)
    files.write(f"{bucket}/c/epoch-file", b"")
    assert list(content_of(f"{bucket}/c")) == ["epoch-1"]
