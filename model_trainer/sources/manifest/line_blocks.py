"""Reads a text file in blocks of complete lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from model_trainer.sources.manifest.arrow_values import NeedsRowReader

__all__ = ["line_blocks"]

_BLOCK_BYTES = 4 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def line_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yields blocks of a few MiB, each of complete lines that end in "\\n" or "\\r\\n", without a byte order mark.

    Raises:
        NeedsRowReader: the file has other line breaks, zero bytes or very long lines.
        UnicodeDecodeError: the file is not UTF-8.
    """
    rest = b""
    data = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while data:
        following = file.read(_BLOCK_BYTES)
        end = data.rfind(b"\n") + 1 if following else len(data)
        if not end and len(rest) > _BLOCK_BYTES:
            raise NeedsRowReader("a line is very long")
        if end:
            yield _checked(rest + data[:end])
            rest = data[end:]
        else:
            rest += data
        data = following


def _checked(block: bytes) -> bytes:
    if not block.isascii():
        block.decode()
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        raise NeedsRowReader("there are line breaks of several kinds")
    if b"\0" in block or block.startswith(_BYTE_ORDER_MARK):
        raise NeedsRowReader("there are zero bytes or several byte order marks")
    return block
