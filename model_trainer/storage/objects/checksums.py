"""Whether a downloaded object has the content of its ETag.

The ETag of an object that was uploaded by one request is the MD5 of its content; of one in parts it is the MD5 of their
MD5s. With server-side encryption by KMS keys it is neither: two downloads with the same content, which is not that of
the ETag, show that.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["is_intact", "tag_of"]

_MIB = 1 << 20
PART_SIZES = tuple(count * _MIB for count in (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512))
_WITHOUT_MD5: dict[str, bytes] = {}  # by bucket, the digest of the last content whose ETag was another one
_PROVEN: set[str] = set()  # buckets whose ETags are no MD5s


def is_intact(content: bytes, size: int, tag: str | None, bucket: str, *, again: bool = False) -> bool:
    """Whether `content` may be that of an object; False asks for a second download.

    Args:
        content: what was downloaded.
        size: of the object, in bytes.
        tag: its ETag.
        bucket: URL of the bucket, whose objects are probably encrypted alike.
        again: whether this is the second download, of the same object.
    """
    if len(content) != size:
        return False
    expected = tag_of(content, tag)
    if expected is None or expected == (tag or "").strip('"') or bucket in _PROVEN:
        return True
    digest = hashlib.sha256(content).digest()
    if again and _WITHOUT_MD5.get(bucket) == digest:
        _PROVEN.add(bucket)
        return True
    _WITHOUT_MD5[bucket] = digest
    return False


def tag_of(content: bytes, tag: str | None) -> str | None:
    """The ETag that `content` would have, uploaded as `tag` says; None if it cannot be known."""
    match = re.fullmatch(r'"?([0-9a-f]{32})(?:-(\d+))?"?', tag or "")
    if match is None:
        return None
    if match[2] is None:
        return _md5(content).hexdigest()
    count = int(match[2])
    sizes = [size for size in PART_SIZES if -(-len(content) // size) == count]
    tags = [_tag_of_parts(content, size, count) for size in sizes]
    return match[0].strip('"') if match[0].strip('"') in tags else (tags[0] if len(sizes) == len(PART_SIZES) else None)


def _tag_of_parts(content: bytes, part_size: int, count: int) -> str:
    view = memoryview(content)
    digests = b"".join(_md5(view[start : start + part_size]).digest() for start in range(0, len(content), part_size))
    return f"{_md5(digests).hexdigest()}-{count}"


def _md5(content: bytes | memoryview) -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)
