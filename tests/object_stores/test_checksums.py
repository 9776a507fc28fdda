"""ETags as a real server computes them, and stores whose ETags are not MD5 digests."""

from __future__ import annotations

import hashlib
import io

import pytest

from model_trainer.storage.objects.checksums import Checksums, Digest, PartDigests
from tests.object_stores.conftest import Weed

MIB = 1 << 20
CONTENT = bytes(range(256)) * (44 << 10)  # 11 MiB
OPAQUE = "0" * 32


def digest(content: bytes, etag: str | None, size: int | None = None) -> Digest:
    result = Digest(len(content) if size is None else size, etag)
    for start in range(0, len(content), 1_000_003):
        result.update(memoryview(content)[start : start + 1_000_003])
    return result


def not_encrypted() -> bool:
    return False


@pytest.mark.parametrize("part_size", [0, 5 * MIB, 8 * MIB])
def test_the_computed_etag_equals_that_of_the_server(bucket: str, s3: Weed, part_size: int) -> None:
    from boto3.s3.transfer import TransferConfig

    name = bucket.removeprefix("s3://")
    config = TransferConfig(multipart_threshold=part_size or 1 << 40, multipart_chunksize=part_size or 8 * MIB)
    s3.client().upload_fileobj(io.BytesIO(CONTENT), name, "a", Config=config)
    etag = s3.client().head_object(Bucket=name, Key="a")["ETag"]
    digests = PartDigests(part_size)
    for start in range(0, len(CONTENT), 3 * MIB + 1):
        digests.update(CONTENT[start : start + 3 * MIB + 1])
    assert f'"{digests.etag()}"' == etag
    assert Checksums().accepts(digest(CONTENT, etag), None, not_encrypted)
    assert not Checksums().accepts(digest(CONTENT[:-1] + b"x", etag), None, not_encrypted)


def test_an_object_of_full_parts_has_no_empty_last_part() -> None:
    digests = PartDigests(4)
    digests.update(b"12345678")
    parts = hashlib.md5(b"1234").digest() + hashlib.md5(b"5678").digest()
    assert digests.etag() == f"{hashlib.md5(parts).hexdigest()}-2"


def test_content_of_another_size_is_never_accepted() -> None:
    checksums = Checksums()
    for etag in (None, "strange", hashlib.md5(b"12").hexdigest()):
        assert not checksums.accepts(digest(b"12", etag, size=3), digest(b"12", etag, size=3), not_encrypted)


def test_a_store_without_etags_is_trusted() -> None:
    assert Checksums().accepts(digest(b"12", None), None, not_encrypted)
    assert Checksums().accepts(digest(b"12", '"0x8DC-azure"'), None, not_encrypted)


def test_identical_damage_in_two_downloads_is_refused_where_etags_are_md5() -> None:
    checksums = Checksums()
    assert checksums.accepts(digest(b"right", hashlib.md5(b"right").hexdigest()), None, not_encrypted)
    assert not checksums.accepts(digest(b"wrong", OPAQUE), None, not_encrypted)
    assert not checksums.accepts(digest(b"wrong", OPAQUE), digest(b"wrong", OPAQUE), not_encrypted)


def test_only_the_first_object_encrypted_by_kms_is_downloaded_twice() -> None:
    checksums = Checksums()
    assert not checksums.accepts(digest(b"a", OPAQUE), None, lambda: True)
    assert checksums.accepts(digest(b"a", OPAQUE), digest(b"a", OPAQUE), lambda: True)
    assert checksums.accepts(digest(b"b", "1" * 32), None, lambda: True)


def test_after_two_objects_a_store_is_known_to_have_etags_other_than_md5() -> None:
    checksums = Checksums()
    for content, etag in ((b"a", OPAQUE), (b"b", "1" * 32)):
        assert not checksums.accepts(digest(content, etag), None, not_encrypted)
        assert checksums.accepts(digest(content, etag), digest(content, etag), not_encrypted)
    assert checksums.accepts(digest(b"c", "2" * 32), None, not_encrypted)


def test_two_different_downloads_are_both_refused() -> None:
    checksums = Checksums()
    assert not checksums.accepts(digest(b"a", OPAQUE), None, not_encrypted)
    assert not checksums.accepts(digest(b"b", OPAQUE), digest(b"a", OPAQUE), not_encrypted)


def test_an_upload_is_verified_by_its_etag_if_etags_are_md5() -> None:
    checksums = Checksums()
    assert checksums.has_arrived(OPAQUE, f'"{OPAQUE}"')
    assert not checksums.has_arrived(OPAQUE, '"1"')
    checksums.disprove(in_parts=False)
    assert checksums.has_arrived(OPAQUE, '"1"')
    assert not checksums.has_arrived(f"{OPAQUE}-2", '"1"')
