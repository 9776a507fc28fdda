"""Files that grow in an object store, such as logs; lines that another process appended are not lost."""

from __future__ import annotations

import contextlib
import threading
from unittest.mock import Mock

import pytest

from model_trainer.storage import files
from model_trainer.storage.objects import appends
from model_trainer.storage.objects.store import ObjectStore
from tests.object_stores.conftest import Weed


def test_this_process_reads_appended_lines_at_once(bucket: str) -> None:
    path = f"{bucket}/logs/train.log"
    with contextlib.closing(files.append(path)) as log:
        for number in range(5):
            log.write(b"%d\n" % number)
            assert files.read(path).endswith(b"%d\n" % number)
    assert files.read(path) == b"0\n1\n2\n3\n4\n"


def test_an_opened_log_exists_in_the_store_at_once(bucket: str, s3: Weed) -> None:
    files.append(f"{bucket}/train.log").close()
    assert s3.client().get_object(Bucket=bucket[5:], Key="train.log")["Body"].read() == b""


def test_a_background_thread_uploads_appended_lines(bucket: str, s3: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = threading.Event()
    original = appends.Appends._write

    def write(self: appends.Appends, path: str, file: appends._File, content: bytes, mode: object) -> None:
        original(self, path, file, content, mode)
        if content == b"line\n":
            uploaded.set()

    monkeypatch.setattr(appends.Appends, "_write", write)
    files.append(f"{bucket}/train.log").write(b"line\n")
    assert uploaded.wait(60)
    assert s3.client().get_object(Bucket=bucket[5:], Key="train.log")["Body"].read() == b"line\n"


def test_lines_of_two_processes_are_all_kept(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has its own `ObjectStore`."""
    path, stores = f"{bucket}/log", [ObjectStore(), ObjectStore()]
    ends = [store.append(path) for store in stores]
    for number in range(3):
        for store, end, name in zip(stores, ends, "ab", strict=True):
            end.write(f"{name}{number}\n".encode())
            store._appends.flush(path)
    assert files.read(path) == b"a0\nb0\na1\nb1\na2\nb2\n"


def test_lines_are_not_appended_twice_if_the_answer_to_an_upload_is_lost(bucket: str) -> None:
    path, store = f"{bucket}/log", ObjectStore()
    store.append(path).write(b"a\n")
    store._appends.flush(path)
    file = store._appends._files[path]
    before = file.uploaded, file.version
    store.append(path).write(b"b\n")
    store._appends.flush(path)
    file.uploaded, file.version = before  # this process does not know that "b" was uploaded
    store._appends.flush(path)
    assert files.read(path) == b"a\nb\n"


def test_lines_can_be_appended_while_the_store_does_not_answer(bucket: str) -> None:
    path, store = f"{bucket}/log", ObjectStore()
    log = store.append(path)
    asked = threading.Event()

    def fail(*arguments: object) -> None:
        asked.set()
        raise OSError(5, "the store does not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._appends, "_write", fail)
        log.write(b"a\n")
        assert asked.wait(60)
        log.write(b"b\n")
    store._appends.flush_all()
    assert files.read(path) == b"a\nb\n"


def test_appending_to_an_overwritten_file_continues_its_new_content(bucket: str) -> None:
    path = f"{bucket}/log"
    files.append_text(path, "old\n")
    files.write(path, b"new\n")
    files.append_text(path, "more\n")
    assert files.read(path) == b"new\nmore\n"


def upload_without_answer(store: ObjectStore, path: str, content: bytes) -> None:
    """Uploads the content as if the answer of the store were lost."""
    file = store._appends._files[path]
    before = file.uploaded, file.version
    store._appends._write(path, file, content, file.version)
    file.uploaded, file.version = before
    file.sent = [len(content)]


def test_lines_of_two_processes_are_uploaded_once_if_an_answer_is_lost(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends.Appends, "_flush_later", lambda *arguments: None)
    path, stores = f"{bucket}/log", [ObjectStore(), ObjectStore()]
    log, other = (store.append(path) for store in stores)
    log.write(b"a\n")
    upload_without_answer(stores[0], path, b"a\n")
    log.write(b"b\n")
    stores[0]._appends.flush(path)
    assert files.read(path) == b"a\nb\n"
    log.write(b"c\n")
    upload_without_answer(stores[0], path, b"a\nb\nc\n")
    other.write(b"of another\n")
    stores[1]._appends.flush(path)
    log.write(b"d\n")
    stores[0]._appends.flush(path)
    assert files.read(path) == b"a\nb\nc\nof another\nd\n"


def test_a_deleted_log_is_written_again_with_all_its_lines(bucket: str, s3: Weed) -> None:
    path = f"{bucket}/logs/train.log"
    log = files.append(path)
    for number in range(3):
        log.write(b"%d\n" % number)
        assert files.names_in(f"{bucket}/logs") == ["train.log"]
        s3.client().delete_object(Bucket=bucket[5:], Key="logs/train.log")
    log.write(b"3\n")
    assert files.read(path) == b"0\n1\n2\n3\n"


def test_a_folder_can_be_listed_if_its_logs_cannot_be_uploaded(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    log = files.append(f"{bucket}/logs/train.log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appends.Appends, "_write", Mock(side_effect=FileNotFoundError(2, "it is gone")))
        log.write(b"1\n")
        assert files.names_in(f"{bucket}/logs") == ["train.log"]
        assert files.is_folder(f"{bucket}/logs")
    assert "train.log is missing its last lines: it is gone." in caplog.text
    assert files.read(f"{bucket}/logs/train.log") == b"1\n"


def test_an_open_log_stays_open_however_many_files_are_opened(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appends, "KEPT", 2)
    store = ObjectStore()
    log = store.append(f"{bucket}/log")
    for number in range(4):
        store.append(f"{bucket}/{number}").close()
    log.write(b"1\n")
    store._appends.flush_all()
    assert files.read(f"{bucket}/log") == b"1\n"
    assert len(store._appends._files) == 3
