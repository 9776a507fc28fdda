"""Checkpoints while their storage does not answer, or belongs to another process now."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import BinaryIO

import pytest

from model_trainer.errors import StorageError, UnavailableError
from model_trainer.storage import files
from model_trainer.storage.memory import Memory
from model_trainer.storage.objects.locks import LostLockError
from model_trainer.storage.storage import Info
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint, read_newest, write_checkpoint

CHECKPOINT = Checkpoint(0, 3, {}, {})


@dataclass
class Failing(Memory):
    """A storage whose every request fails with an error, if it has one."""

    error: StorageError | None = field(default=None)
    error_of_reads: StorageError | None = field(default=None)

    def info(self, path: str) -> Info | None:
        if self.error is not None:
            raise self.error
        return super().info(path)

    def open(self, path: str) -> BinaryIO:
        if self.error_of_reads is not None:
            raise self.error_of_reads
        return super().open(path)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Failing:
    storage = Failing()
    monkeypatch.setitem(files._MOUNTED, "failing", storage)
    files.make_folder("failing://run")
    return storage


@pytest.fixture
def folder(storage: Failing) -> PurePath:
    return files.as_path("failing://run/checkpoints")


def test_training_continues_while_a_store_does_not_answer(
    storage: Failing, folder: PurePath, caplog: pytest.LogCaptureFixture
) -> None:
    storage.error = UnavailableError("s3://results/run: it does not answer.")
    with Saver(folder) as saver, caplog.at_level(logging.WARNING):
        saver.save(lambda: CHECKPOINT)
        saver.wait()
        assert str(saver.failed) == "s3://results/run: it does not answer."
        (message,) = caplog.messages
        assert message == (
            "s3://results/run: it does not answer. Until a checkpoint can be written, --resume would continue from the "
            "last one that was written."
        )
        storage.error = None
        saver.save(lambda: CHECKPOINT)
        saver.wait()
        assert saver.failed is None
    assert read_newest(folder) is not None


def test_a_checkpoint_that_cannot_be_read_in_an_outage_is_not_damaged(storage: Failing, folder: PurePath) -> None:
    write_checkpoint(folder, CHECKPOINT)
    storage.error_of_reads = UnavailableError("s3://results/run: it does not answer.")
    with pytest.raises(UnavailableError, match="does not answer"):
        read_newest(folder)


def test_training_ends_when_another_process_has_taken_over_the_run(storage: Failing, folder: PurePath) -> None:
    saver = Saver(folder)
    storage.error = LostLockError(errno.ESTALE, "another process has taken over this run", "s3://results/run")
    saver.save(lambda: CHECKPOINT)
    with pytest.raises(LostLockError):
        saver.wait()
    saver.__exit__(None, None, None)
