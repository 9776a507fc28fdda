"""Files are read up to a limit, and named pipes and devices are refused without waiting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer.storage import files
from model_trainer.storage.memory import Memory
from model_trainer.storage.read import read_end, read_image_file, read_limited


@pytest.fixture(params=["local", "mounted"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> files.StrPath:
    path: files.StrPath = tmp_path / "file"
    if request.param == "mounted":
        files.mount("readtest", Memory())
        path = "readtest://folder/file"
        files.make_folder("readtest://folder")
    files.write(path, b"0123456789")
    return path


def test_a_file_with_exactly_the_limit_is_read(file: files.StrPath) -> None:
    assert read_limited(file, 10) == b"0123456789"


def test_a_larger_file_is_refused(file: files.StrPath) -> None:
    with pytest.raises(OSError, match="more than the limit of 9 bytes"):
        read_limited(file, 9)


def test_the_end_of_a_file_is_read(file: files.StrPath) -> None:
    assert read_end(file, 3) == b"789"
    assert read_end(file, 11) == b"0123456789"


READERS: list[Callable[[str], bytes]] = [
    read_image_file,
    lambda path: read_limited(path, 9),
    lambda path: read_end(path, 9),
]


@pytest.mark.parametrize("read", READERS, ids=["image", "limited", "end"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path, read: Callable[[str], bytes]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)
