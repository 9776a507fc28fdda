from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_trainer.sources.recordio.framing import BrokenRecord, frame_record, read_record, scan_records

MAGIC = bytes.fromhex("0a23d7ce")

# Two records as MXNet 1.9.1 wrote them: mx.recordio.pack(IRHeader(0, k, 7 * k, 0), image) of the images below.
BY_MXNET = bytes.fromhex(
    "0a23d7ce1d0000000000000000000000000000000000000000000000000000005f82c2d9cf000000"
    "0a23d7ce18000020000000000000803f070000000000000000000000000000000a23d7ce00000060"
)
IMAGES_BY_MXNET = (bytes.fromhex("5f82c2d9cf"), MAGIC)


def scanned(data: bytes) -> list[int]:
    offsets = array("q")
    scan_records(data, offsets)
    return offsets.tolist()


def joined_by_definition(data: bytes) -> list[bytes]:
    """The records of a file, word by word."""
    records: list[bytes] = []
    while data:
        assert data[:4] == MAGIC
        (word,) = struct.unpack("<I", data[4:8])
        chunk, data = data[8 : 8 + word % 2**29], data[8 + -(-(word % 2**29) // 4) * 4 :]
        if word >> 29 in (0, 1):
            records.append(chunk)
        else:
            records[-1] += MAGIC + chunk
    return records


payloads = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=6)), max_size=8).map(b"".join)


@settings(deadline=None)
@given(st.lists(payloads, max_size=4))
def test_records_full_of_magic_words_are_read_back_unchanged(records: list[bytes]) -> None:
    data = b"".join(chunk for record in records for chunk in frame_record(record))
    assert [read_record(data, offset) for offset in scanned(data)] == records


@settings(deadline=None)
@given(st.lists(payloads, max_size=4))
def test_written_records_follow_the_definition_of_the_format(records: list[bytes]) -> None:
    data = b"".join(chunk for record in records for chunk in frame_record(record))
    assert joined_by_definition(data) == records


@settings(deadline=None)
@given(payloads)
def test_the_magic_word_occurs_only_before_chunks(record: bytes) -> None:
    data = b"".join(frame_record(record))
    words = [data[k : k + 4] for k in range(0, len(data), 4)]
    num_chunks = 1 + sum(record[k : k + 4] == MAGIC for k in range(0, len(record), 4))
    assert words.count(MAGIC) == num_chunks


def test_records_written_by_mxnet_are_read() -> None:
    assert scanned(BY_MXNET) == [0, 40]
    assert tuple(read_record(BY_MXNET, offset)[24:] for offset in (0, 40)) == IMAGES_BY_MXNET


def test_records_are_written_with_the_same_bytes_as_by_mxnet() -> None:
    records = [struct.pack("<IfQQ", 0, k, 7 * k, 0) + image for k, image in enumerate(IMAGES_BY_MXNET)]
    assert b"".join(chunk for record in records for chunk in frame_record(record)) == BY_MXNET


GOOD = MAGIC + struct.pack("<I", 4) + b"good"
LENGTHS = {flag: struct.pack("<I", flag << 29 | 4) for flag in range(8)}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"\xff\xd8\xff\xe0JFIF", "starts with the word 0xced7230a, this one with 0xe0ffd8ff at byte 24"),
        (
            MAGIC + struct.pack("<I", 100) + b"four",
            "a record of 100 bytes starts, but the file ends after 4 at byte 24",
        ),
        (MAGIC + struct.pack("<I", 3) + b"abc", "a record of 3 bytes starts, but the file ends after 3 at byte 24"),
        (MAGIC + LENGTHS[2] + b"part", "has the flag 2 where 0 or 1 should be at byte 24"),
        (MAGIC + LENGTHS[5] + b"part", "has the flag 5 where 0 or 1 should be at byte 24"),
        (MAGIC + LENGTHS[1] + b"part" + GOOD, "has the flag 0 where 2 or 3 should be at byte 36"),
        (MAGIC + LENGTHS[1] + b"part", "the file ends 8 bytes before the end of a record's frame at byte 36"),
        (MAGIC, "the file ends 4 bytes before the end of a record's frame at byte 24"),
        (b"\0", "the file ends 7 bytes before the end of a record's frame at byte 24"),
    ],
)
def test_a_damaged_record_is_reported_with_its_offset_after_the_records_read(broken: bytes, reason: str) -> None:
    offsets = array("q")
    with pytest.raises(BrokenRecord, match=reason):
        scan_records(GOOD + GOOD + broken, offsets)
    assert offsets.tolist() == [0, 12]


@settings(deadline=None)
@given(st.lists(payloads, min_size=1, max_size=3), st.data())
def test_a_file_truncated_anywhere_is_read_up_to_there_or_reported_as_damaged(
    records: list[bytes], data: st.DataObject
) -> None:
    framed_records = [b"".join(frame_record(record)) for record in records]
    record = b"".join(framed_records)
    ends = [sum(map(len, framed_records[:k])) for k in range(len(framed_records) + 1)]
    cut = data.draw(st.integers(0, len(record)))
    offsets = array("q")
    if cut in ends:
        scan_records(record[:cut], offsets)
    else:
        with pytest.raises(BrokenRecord):
            scan_records(record[:cut], offsets)
    assert offsets.tolist() == ends[: sum(end <= cut for end in ends[1:])]
