"""RecordIO files made by hand, from the format's definition."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl import logging

Labels = float | tuple[float, ...]


def image_record(labels: Labels, image: bytes = b"image", number: int = 0) -> bytes:
    if isinstance(labels, tuple):
        return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0.0, number, 0, *labels) + image
    return struct.pack("<IfQQ", 0, labels, number, 0) + image


def framed(payload: bytes) -> bytes:
    """A record without the magic word in it, which therefore is a single chunk."""
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)


@pytest.fixture
def make_rec(tmp_path: Path) -> Callable[..., Path]:
    """Writes `train.rec` with a record for each of the given labels; their images are b"0", b"1", ..."""

    def make(*labels: Labels) -> Path:
        path = tmp_path / "train.rec"
        path.write_bytes(b"".join(framed(image_record(each, b"%d" % k, k)) for k, each in enumerate(labels)))
        return path

    return make


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Captures the log of Model Trainer, from INFO on."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_logger().addHandler(caplog.handler)
    yield caplog
    logging.get_absl_logger().removeHandler(caplog.handler)
    logging.set_verbosity(before)


@pytest.fixture(name="image_record")
def _image_record() -> Callable[..., bytes]:
    return image_record


@pytest.fixture(name="framed")
def _framed() -> Callable[[bytes], bytes]:
    return framed
