from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_trainer import DataError
from model_trainer.sources.recordio import RecordIO
from model_trainer.sources.recordio.framing import frame_record

MakeRec = Callable[..., Path]
PackRecord = Callable[..., bytes]
MAGIC = bytes.fromhex("0a23d7ce")


def test_images_are_read_in_any_order_and_named_by_their_record(make_rec: MakeRec) -> None:
    rec = make_rec(0.0, (1.0, 0.0), 2.0)
    examples = RecordIO(rec).read()
    assert [examples.images.read(row) for row in (2, 0, 1)] == [b"2", b"0", b"1"]
    assert examples.names() == [f"{rec}#{number}" for number in range(3)]
    assert examples.num_bytes.tolist() == [1, 1, 1]


def test_a_label_that_is_the_magic_word_is_read_from_between_the_chunks(
    tmp_path: Path, image_record: PackRecord
) -> None:
    label = float(np.frombuffer(MAGIC, "<f4")[0])
    (tmp_path / "split.rec").write_bytes(b"".join(frame_record(image_record((label, 0.0)))))
    with pytest.raises(DataError, match=r"split.rec#0: label -1804698880 should be"):
        RecordIO(tmp_path / "split.rec").read()


def test_images_of_records_in_several_chunks_are_joined(tmp_path: Path, image_record: PackRecord) -> None:
    images = [MAGIC, b"ab" + MAGIC, b"four" + MAGIC + b"more" + MAGIC + b"!", MAGIC * 4, b"plain"]
    records = [image_record((1.0, 0.0), image, 0xCED7230A) for image in images]  # the id splits the header, too
    records += [image_record(1.0, image) for image in images]
    (tmp_path / "split.rec").write_bytes(b"".join(chunk for record in records for chunk in frame_record(record)))
    examples = RecordIO(tmp_path / "split.rec", labels="indices").read()
    assert [examples.images.read(int(row)) for row in examples.rows] == images * 2
    assert examples.num_bytes.tolist() == [len(image) for image in images * 2]
    assert examples.label_rows().dense(2).tolist() == [[1, 1]] * 5 + [[0, 1]] * 5


def test_records_with_labels_but_no_image_are_skipped(
    tmp_path: Path, image_record: PackRecord, framed: Callable[[bytes], bytes], log: pytest.LogCaptureFixture
) -> None:
    # As data sets of faces begin: the first record describes where the other records are.
    records = [image_record((3.0, 9.0), b""), image_record(1.0, b"a"), image_record(0.0, b"b")]
    (tmp_path / "faces.rec").write_bytes(b"".join(map(framed, records)))
    examples = RecordIO(tmp_path / "faces.rec").read()
    assert "1 records carry labels but no image and were skipped" in log.text
    assert examples.labels.tolist() == [1, 0]
    assert [Path(name).name for name in examples.names()] == ["faces.rec#1", "faces.rec#2"]
    assert [examples.images.read(int(row)) for row in examples.rows] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"no header", r"train.rec#1 \(byte 36\) has 9 bytes; an image record has a header of 24"),
        (b"\xff" * 40, r"train.rec#1 \(byte 36\) has 40 bytes, but its header declares 4294967295 labels"),
    ],
)
def test_a_record_without_a_valid_header_is_named(
    make_rec: MakeRec, framed: Callable[[bytes], bytes], record: bytes, message: str
) -> None:
    rec = make_rec(0.0)
    rec.write_bytes(rec.read_bytes() + framed(record))
    with pytest.raises(DataError, match=message):
        RecordIO(rec).read()


def test_a_file_replaced_while_it_is_open_gives_errors_and_not_other_images(make_rec: MakeRec) -> None:
    rec = make_rec(0.0, (1.0, 0.0), 2.0)
    examples = RecordIO(rec).read()
    rec.unlink()  # replaced, not overwritten: an open file still has the old content
    make_rec((0.0, 1.0, 2.0), 1.0)
    assert RecordIO(rec).read().num_bytes.tolist() == [1, 1]
    assert examples.num_bytes.tolist() == [1, -1, -1]
    with pytest.raises(OSError, match="starts with the word"):
        examples.images.read(1)


def test_a_list_declared_as_records_names_the_source_for_lists() -> None:
    with pytest.raises(DataError, match=r"is a list, not the records. Declare MxnetList\('train.lst'\)"):
        RecordIO("train.lst").read()


def test_a_declaration_survives_a_json_round_trip(tmp_path: Path) -> None:
    source = RecordIO(tmp_path / "a.rec", labels="indices", classes=("x", "y"), list=tmp_path / "a.lst")
    assert RecordIO.from_dict(source.to_dict()) == source


@pytest.mark.parametrize("with_index", [False, True])
def test_reading_takes_at_most_120_bytes_per_example_and_keeps_24(tmp_path: Path, with_index: bool) -> None:
    count = 100_000
    fields = [
        ("magic", "<u4"),
        ("length", "<u4"),
        ("flag", "<u4"),
        ("label", "<f4"),
        ("ids", "<u8", 2),
        ("image", "<u4"),
    ]
    records = np.zeros(count, np.dtype(fields))
    records["magic"], records["length"], records["label"] = 0xCED7230A, 28, np.arange(count) % 1000
    records.tofile(tmp_path / "many.rec")
    if with_index:
        lines = (f"{number}\t{number * records.itemsize}\n" for number in range(count))
        (tmp_path / "many.idx").write_text("".join(lines))
    tracemalloc.start()
    try:
        examples = RecordIO(tmp_path / "many.rec").read()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(examples) == count
    assert examples.labels[-1] == (count - 1) % 1000
    assert peak <= 120 * count
    assert kept <= 26 * count  # the names of 1,000 classes besides
