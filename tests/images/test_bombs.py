"""Small files whose decoding would fill the memory or take forever."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import ModelSpec
from model_trainer.errors import DataError
from model_trainer.images.pillow import decode_with_pillow, why_unreadable
from model_trainer.pipeline.image import fast_image, read_image
from model_trainer.pipeline.view import View

SPEC = ModelSpec(target_size=[8, 8, 3])
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, before: bytes = b"", rows: bytes = b"\0" * 13) -> bytes:
    """A PNG in RGB with 8 bits per channel; `before` are the chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp(width: int, height: int, compression: int = 0, bits: int = 24, pixels: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIIIII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + pixels


def gif(width: int, height: int, frame: tuple[int, int], before: bytes = b"") -> bytes:
    picture = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + before + picture + b";"


def tiff(*entries: tuple[int, int, int], width: int = 8, count: int = 1) -> bytes:
    """Gray, 8 bits, in one strip; `entries` are tag, type and value."""
    tags = [(256, 4, width), (257, 4, width), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 64)]
    tags = sorted({tag: (tag, kind, value) for tag, kind, value in (*tags, *entries)}.values())
    tags = b"".join(struct.pack("<HHII", tag, kind, count if tag == 273 else 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + tags + b"\0" * 4 * (count + 16)


def webp(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"VP8X" + struct.pack("<I4x", 10) + canvas + encoded(RGB, "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def with_declared_size(width: int, height: int) -> bytes:
    """A JPEG whose header declares another size."""
    data = bytearray(encoded(RGB, "JPEG"))
    offset = data.index(b"\xff\xc0")
    data[offset + 5 : offset + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_scans(count: int) -> bytes:
    """A progressive JPEG with `count` more scans, in which no coefficient changes."""
    data = encoded(RGB.convert("L"), "JPEG", progressive=True)
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\0"  # code 0: the block ends here
    scan = b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0" + b"\x7f"
    last = data.index(b"\xff\xd9")
    return data[:last] + table + scan * count + data[last:]


def zeros(num_bytes: int) -> bytes:
    return zlib.compress(b"\0" * num_bytes, 9)


TOO_MUCH_PADDING = "has more than 262,144 bytes between the segments of its header"
TOO_LARGE = r"has more than the limit of 178,956,970 pixels \(MODEL_TRAINER_MAX_PIXELS changes it\)"
TOO_MANY = "consists of more than 100,000 segments"
BOMBS = {
    "png_size": (lambda: png(2**31 - 1, 2**31 - 1), TOO_LARGE),
    "png_overflowing_size": (lambda: png(2**32 - 1, 2**32 - 1), TOO_LARGE),
    "png_empty": (lambda: png(0, 5), r"is damaged \(its PNG header cannot be read\)"),
    "png_ztxt": (lambda: png(2, 2, chunk(b"zTXt", b"a\0\0" + zeros(2**24))), "is damaged"),
    "png_itxt": (lambda: png(2, 2, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(2**24))), "is damaged"),
    "png_iccp": (lambda: png(2, 2, chunk(b"iCCP", b"a\0\0" + zeros(2**24))), "is damaged"),
    "png_chunks": (lambda: png(2, 2, chunk(b"eXIf", b"") * 100_001), TOO_MANY),
    "jpeg_size": (lambda: with_declared_size(65535, 65535), TOO_LARGE),
    "jpeg_without_height": (lambda: with_declared_size(8, 0), r"is damaged \(its JPEG header cannot be read\)"),
    "jpeg_scans": (lambda: with_scans(250), "has more than 200 scans"),
    "jpeg_header": (lambda: b"\xff\xd8\xff\xe0" + b"\0" * (2**25 + 1), "has a header of more than 33,554,432 bytes"),
    "jpeg_padding": (lambda: b"\xff\xd8" + b"\xff" * 300_000, TOO_MUCH_PADDING),
    "jpeg_garbage": (lambda: b"\xff\xd8" + b"a\xff\xe0\0\2" * 50_000 + b"a" * 300_000, TOO_MUCH_PADDING),
    "jpeg_segments": (lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 100_001, TOO_MANY),
    "gif_canvas": (lambda: gif(65535, 65535, (1, 1)), TOO_LARGE),
    "gif_frame": (lambda: gif(1, 1, (65535, 65535)), TOO_LARGE),
    "gif_comment": (lambda: gif(1, 1, (1, 1), b"!\xfe" + b"\1a" * 100_001 + b"\0"), TOO_MANY),
    "bmp_size": (lambda: bmp(2**31 - 1, 2**31 - 1), TOO_LARGE),
    "bmp_upside_down": (lambda: bmp(8, -(2**31)), TOO_LARGE),
    "bmp_of_negative_width": (lambda: bmp(-8, 8), TOO_LARGE),
    "bmp_runs": (
        lambda: bmp(5000, 5000, 1, 8),
        "has more than 16,777,216 pixels, the limit for a run-length encoded BMP",
    ),
    "bmp_idle_runs": (lambda: bmp(3, 3, 1, 8, b"\4\1" * 100_000), "has far more bytes than its pixels need"),
    "webp_canvas": (lambda: webp(2**24, 2**24), TOO_LARGE),
    "tiff_size": (lambda: tiff(width=2**31), TOO_LARGE),
    "tiff_strips": (lambda: tiff(count=100_001), TOO_MANY),
    "tiff_tiles": (lambda: tiff((322, 4, 46_336), (323, 4, 46_336)), "has tiles of 46,336 pixels on a side"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    make, reason = BOMBS[name]
    assert re.match(reason, why_unreadable(make()))
    (tmp_path / "x.jpg").write_bytes(make())
    with pytest.raises(DataError, match=f"x.jpg {reason}"):  # tried by both paths
        read_image(tmp_path / "x.jpg", SPEC)


def test_a_jpeg_with_many_scans_is_still_read() -> None:
    assert decode_with_pillow(with_scans(100), (0, 0, 0), False) is not None


def test_the_fast_path_leaves_jpegs_with_too_many_scans_to_pillow() -> None:
    fast_image(tf.constant(with_scans(190)), View(SPEC))
    with pytest.raises(tf.errors.InvalidArgumentError):
        fast_image(tf.constant(with_scans(250)), View(SPEC))


# 25 million transparent pixels in 100 KB, decoded in a separate process, whose peak memory is that of decoding. Then
# again with less memory than the pixels need.
PROGRAM = """
import resource, struct, sys, zlib
from model_trainer.images.pillow import decode_with_pillow, why_unreadable
def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
def megabytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024
header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 6, 0, 0, 0))
packer = zlib.compressobj()
rows = b"".join(packer.compress(bytes(20_001)) for _ in range(5000)) + packer.flush()
data = b"\\x89PNG\\r\\n\\x1a\\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
before = megabytes("VmHWM")
shape = decode_with_pillow(data, (255, 255, 255), False).shape
print(shape, megabytes("VmHWM") - before)
limit = int(megabytes("VmSize")) * 2**20 + 120 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(why_unreadable(data))
print("tensorflow" in sys.modules)
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_decoding_takes_little_memory_and_an_image_that_does_not_fit_is_unreadable() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    decoded, reason, loads_tensorflow = done.stdout.splitlines()
    shape, _, megabytes = decoded.rpartition(" ")
    assert shape == "(5000, 5000, 3)"
    assert float(megabytes) < 25 * 10  # 4 bytes a pixel in Pillow, 3 for us, and the strips; whole it would be 49
    assert reason == "needs more memory than there is"
    assert loads_tensorflow == "False"
