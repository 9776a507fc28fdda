"""Random access to objects: the same bytes as from a file on disk, with few requests."""

from __future__ import annotations

import io
import random

import pytest

from model_trainer.storage import files
from model_trainer.storage.objects.reader import MAX_AHEAD
from tests.object_stores.proxy import Fault, Proxy

CONTENT = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def path(bucket: str) -> str:
    files.write(f"{bucket}/a.bin", CONTENT)
    return f"{bucket}/a.bin"


def test_seek_and_read_give_the_same_bytes_as_on_disk(path: str) -> None:
    disk, rng = io.BytesIO(CONTENT), random.Random(1)
    with files.open_file(path) as file:
        for _ in range(40):
            offset, size = rng.randrange(len(CONTENT) + 10), rng.choice([1, 7, 300, 40_000])
            whence = rng.choice([io.SEEK_SET, io.SEEK_END])
            start = offset if whence == io.SEEK_SET else -min(offset, len(CONTENT))
            assert file.seek(start, whence) == disk.seek(start, whence)
            assert file.read(size) == disk.read(size)


def test_sequential_reading_takes_few_requests(proxy: Proxy, path: str) -> None:
    proxy.requests.clear()
    with files.open_file(path) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == CONTENT
    sizes = [each.header("Range") for each in proxy.requests if each.method == "GET"]
    assert len(sizes) == 4  # 256 KiB, 512 KiB, 1 MiB, and the rest
    assert MAX_AHEAD >= 1 << 20


def test_reading_after_a_seek_requests_only_one_buffer(proxy: Proxy, path: str) -> None:
    proxy.requests.clear()
    with files.open_file(path) as file:
        file.seek(2_000_000)
        file.read(10)
        file.seek(1_000_000)
        file.read(10)
    ranges = [each.header("Range") for each in proxy.requests if each.method == "GET"]
    assert ranges == ["bytes=2000000-2262143", "bytes=1000000-1262143"]


def test_a_truncated_range_is_completed(proxy: Proxy, path: str) -> None:
    proxy.faults = [Fault("GET", "a.bin", cut=1000)]
    assert files.read_range(path, 5, 100_000) == CONTENT[5:100_005]


def test_a_range_beyond_the_end_is_an_error_of_this_object(path: str) -> None:
    for start in (2_999_990, 3_000_000, 4_000_000):
        with pytest.raises(OSError, match="it ends before"):
            files.read_range(path, start, 20)
        assert files.read_range(path, start, 0) == b""
