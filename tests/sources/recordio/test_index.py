from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer import DataError
from model_trainer.sources.recordio import index as index_module
from model_trainer.sources.recordio.index import find_records

PackRecord = Callable[..., bytes]


@pytest.fixture
def rec(make_rec: Callable[..., Path]) -> Path:
    return make_rec(0.0, (1.0, 0.0, 1.0), 2.0)


OFFSETS = [0, 36, 36 + 48]  # 8 of the frame, 24 of the header, the labels, and one byte filled up to 4


def test_without_an_index_the_file_is_scanned(rec: Path) -> None:
    assert find_records(str(rec), None).tolist() == OFFSETS


@pytest.fixture
def never_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "scan_records", None)


@pytest.mark.usefixtures("never_scans")
@pytest.mark.parametrize("text", ["0\t0\n1\t36\n2\t84\n", "9\t84\n7\t36\n8\t0\n", "0\t0\r\n1\t36\r\n2\t84"])
def test_an_index_that_fits_is_used_whatever_its_order(rec: Path, text: str) -> None:
    rec.with_suffix(".idx").write_text(text, newline="")
    assert find_records(str(rec), None).tolist() == OFFSETS


@pytest.mark.usefixtures("never_scans")
def test_an_index_may_have_another_name(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("0\t0\n1\t36\n2\t84\n")
    assert find_records(str(rec), str(tmp_path / "other")).tolist() == OFFSETS


@pytest.mark.parametrize(
    "text",
    [
        "0\t0\n1\t36\n",  # the last record is missing
        "0\t0\n2\t84\n",  # one between is missing
        "1\t36\n2\t84\n",  # the first is missing
        "0\t0\n1\t36\n2\t84\n3\t84\n",  # one twice
        "0\t0\n1\t40\n2\t84\n",  # no record begins there
        "0\t0\n1\t37\n2\t84\n",
        "0\t0\n1\t36\n2\t84\n3\t400\n",  # past the end
        "-1\t-4\n0\t0\n1\t36\n2\t84\n",
        "cat\t0\ndog\t36\n",
        "0\t0\n1\n",
        "",
    ],
)
def test_an_index_that_does_not_fit_gives_a_warning_and_is_not_used(
    rec: Path, text: str, log: pytest.LogCaptureFixture
) -> None:
    rec.with_suffix(".idx").write_text(text)
    assert find_records(str(rec), None).tolist() == OFFSETS
    assert "train.idx does not fit" in log.text


def test_an_index_of_records_in_several_chunks_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_record: PackRecord
) -> None:
    from model_trainer.sources.recordio.framing import frame_record

    record = b"".join(frame_record(image_record(0.0, bytes.fromhex("0a23d7ce") * 3)))
    (tmp_path / "train.rec").write_bytes(record * 3)
    (tmp_path / "train.idx").write_text("".join(f"{k}\t{k * len(record)}\n" for k in range(3)))
    monkeypatch.setattr(index_module, "scan_records", None)
    assert find_records(str(tmp_path / "train.rec"), None).tolist() == [k * len(record) for k in range(3)]


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "train.rec is empty"),
        (lambda data: b"\x89PNG\r\n\x1a\n" * 9, "is not a RecordIO file, or its start is damaged: .* at byte 0"),
        (lambda data: data[:-1], "2 records were read, then a record of 25 bytes starts, .* at byte 84"),
        (lambda data: data[:50], "1 records were read, then a record of 37 bytes starts, .* at byte 36"),
        (lambda data: data[:36] + b"oops" + data[40:], "1 records were read, .* 0x73706f6f at byte 36"),
        (lambda data: data[:40] + b"\xff" * 4 + data[44:], "1 records were read, .* flag 7 where .* at byte 36"),
        (lambda data: data + b"\0\0", "3 records were read, then the file ends 6 bytes before"),
    ],
)
def test_the_error_of_a_damaged_file_gives_the_records_read_and_the_offset(
    rec: Path, damage: Callable[[bytes], bytes], message: str, with_index: bool
) -> None:
    rec.write_bytes(damage(rec.read_bytes()))
    if with_index:
        rec.with_suffix(".idx").write_text("0\t0\n1\t36\n2\t84\n")
    with pytest.raises(DataError, match=message) as caught:
        find_records(str(rec), None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.rec", "There is no file .*no.rec"),
        (".", "is a folder; RecordIO needs a .rec file"),
        ("ftp://host/train.rec", "reads local files, and those in s3://, gs:// and az://"),
    ],
)
def test_a_path_without_a_file_is_named(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_records(path if "://" in path else str(tmp_path / path), None)


def test_a_declared_index_that_is_missing_is_named(rec: Path) -> None:
    with pytest.raises(DataError, match=r"There is no index .*gone.idx. .* can be read without one"):
        find_records(str(rec), str(rec.with_name("gone.idx")))
