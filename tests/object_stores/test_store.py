"""An object store behaves like every other storage, against a real S3 server."""

from __future__ import annotations

import contextlib

import pytest

from model_trainer.serving.predictor import find_images
from model_trainer.storage import files
from model_trainer.storage.files import as_path


def test_objects_are_written_read_and_listed(bucket: str) -> None:
    folder = as_path(f"{bucket}/a")
    assert not files.exists(folder)
    files.make_folder(folder)
    assert files.is_folder(folder)
    assert files.names_in(folder) == []
    files.write(folder / "x.bin", b"hello")
    files.write(folder / "inner" / "y.bin", b"")
    assert files.names_in(folder) == ["inner", "x.bin"]
    assert files.read(folder / "x.bin") == b"hello"
    assert files.read_range(folder / "x.bin", 1, 3) == b"ell"
    with pytest.raises(FileExistsError):
        files.make_folder(folder, new=True)
    big = bytes(range(256)) * (80 << 10)
    files.write(folder / "big", [big[:5_000_000], big[5_000_000:]])
    assert files.read(folder / "big") == big
    with files.open_file(folder / "big") as file:
        file.seek(1000)
        assert file.read(5) == big[1000:1005]
    with contextlib.closing(files.append(folder / "log")) as log:
        log.write(b"1\n")
        log.write(b"2\n")
    assert files.read(folder / "log") == b"1\n2\n"
    files.delete_folder(folder)
    assert not files.exists(folder)


def test_a_second_lock_of_a_folder_is_refused(bucket: str) -> None:
    with files.lock(f"{bucket}/run"), pytest.raises(BlockingIOError), files.lock(f"{bucket}/run", shared=True):
        pass
    with files.lock(f"{bucket}/run", shared=True):
        pass


def test_find_images_lists_the_images_in_a_folder(bucket: str) -> None:
    for name in ("a/1.jpg", "a/b/2.PNG", "a/notes.txt"):
        files.write(f"{bucket}/new/{name}", b"x" * 20)
    assert find_images([f"{bucket}/new", f"{bucket}/one.jpg"]) == [
        f"{bucket}/new/a/1.jpg",
        f"{bucket}/new/a/b/2.PNG",
        f"{bucket}/one.jpg",
    ]
