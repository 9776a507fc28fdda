"""A full disk: complete files are kept, training continues if it can, and no partial file is left."""

from __future__ import annotations

import errno
import io
import json
import logging as python_logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Run
from model_trainer.errors import StorageError
from model_trainer.storage import local
from model_trainer.storage.files import atomic_write, check_room
from model_trainer.storage.lines import LineFile
from model_trainer.storage.write_errors import is_full, not_written
from model_trainer.training import run_folder
from model_trainer.training.checkpoints import saver as saver_module
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint, write_checkpoint
from model_trainer.training.history import draw_curves
from model_trainer.training.log import LogFile, plain_messages
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "eager_steps")

MakeRun = Callable[..., Run]

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(*arguments: object, **options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.FileIO):
    """Writes the first three bytes, then there is no space left."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:3])
        fail()


def open_full(path: str | Path, mode: str = "r", buffering: int = -1) -> io.FileIO:
    return FullFile(path, mode)


def checkpoint(epoch: int, position: int = 0) -> Checkpoint:
    return Checkpoint(epoch, position, {}, {"network/0/kernel": np.full((100, 3), epoch, np.float32)})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_while(monkeypatch: pytest.MonkeyPatch, folder: Path, num_folders: int) -> list[str]:
    """`folder` has room for fewer than `num_folders` checkpoints; returns the list of the files that did not fit."""
    refused: list[str] = []
    write = local.write_synced

    def write_or_fail(path: Path, chunks: Any) -> None:
        if len(list(folder.iterdir())) >= num_folders:
            path.write_bytes(b"half of it")
            refused.append(path.parent.name)
            fail()
        write(path, chunks)

    monkeypatch.setattr(local, "write_synced", write_or_fail)
    return refused


def test_without_room_for_a_third_checkpoint_the_oldest_is_deleted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2):
        write_checkpoint(tmp_path, checkpoint(epoch))
    refused = full_while(monkeypatch, tmp_path, 3)
    write_checkpoint(tmp_path, checkpoint(3))
    assert len(refused) == 1
    assert names_in(tmp_path) == ["epoch-00002-step-0000000", "epoch-00003-step-0000000"]


def test_a_damaged_checkpoint_is_deleted_before_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2):
        write_checkpoint(tmp_path, checkpoint(epoch))
    (tmp_path / "epoch-00002-step-0000000" / "arrays.bin").write_bytes(b"")
    full_while(monkeypatch, tmp_path, 2)
    with pytest.raises(StorageError, match=r"epoch-00001-step-0000007 could not be written.*1.2 kB are needed"):
        write_checkpoint(tmp_path, checkpoint(1, 7))
    assert names_in(tmp_path) == ["epoch-00001-step-0000000"]


def test_a_resumed_run_replaces_later_checkpoints_of_an_earlier_process(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        write_checkpoint(tmp_path, checkpoint(epoch))
    write_checkpoint(tmp_path, checkpoint(1, 5))  # with other steps, or because both checkpoints above are damaged
    assert names_in(tmp_path) == ["epoch-00001-step-0000005"]
    write_checkpoint(tmp_path, checkpoint(1, 5))
    write_checkpoint(tmp_path, checkpoint(1, 6))
    assert names_in(tmp_path) == ["epoch-00001-step-0000005", "epoch-00001-step-0000006"]


def test_the_saver_knows_why_its_newest_save_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = local.write_synced
    with Saver(tmp_path / "checkpoints") as saver, caplog.at_level(python_logging.WARNING):
        monkeypatch.setattr(local, "write_synced", fail)
        saver.save(partial(checkpoint, 1))
        saver.wait()
        assert "1.2 kB are needed" in str(saver.failed)
        assert "Until a checkpoint can be written, --resume would start at the first step." in caplog.text
        monkeypatch.setattr(local, "write_synced", write)
        saver.save(partial(checkpoint, 2))
        saver.wait()
        assert saver.failed is None


def test_saving_to_a_full_disk_is_not_retried_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(saver_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(local, "write_synced", fail)
    with Saver(tmp_path) as saver, caplog.at_level(python_logging.WARNING):
        for second in range(10 * 3600):
            now = float(second)
            saver.save_when_due(partial(checkpoint, 1))
            if saver._writing is not None:
                saver._writing.result()
    assert 30 < len(caplog.records) < 70


def test_an_error_in_the_writing_thread_is_raised_in_the_training_thread(tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    saver.save(lambda: Checkpoint(1, 0, {"best": object()}, {}))
    with pytest.raises(TypeError, match="not JSON serializable"), saver:
        pass


def test_lines_that_do_not_fit_are_dropped_whole_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    for is_full_now in (False, True, True, False):
        with monkeypatch.context() as patch, caplog.at_level(python_logging.WARNING):
            if is_full_now:
                patch.setattr(local, "open", open_full, raising=False)
            lines = LineFile(path)
            for number in range(3):
                lines.write(f"line {number}\n")
            lines.close()
    assert path.read_text() == "line 0\nline 1\nline 2\n" * 2
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 2  # one for each time that the full file was opened
    assert "metrics.jsonl could not be written: No space left on device; " in warned[0]


def test_a_log_file_on_a_full_disk_gives_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from absl import logging

    monkeypatch.setattr(local, "open", open_full, raising=False)
    with plain_messages(), LogFile() as log_file:
        logging.info("before")
        log_file.write_to(tmp_path / "train.log")
        logging.info("after")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "train.log" not in line] == ["before", "after"]
    assert sum("train.log could not be written" in line for line in lines) == 1


def test_messages_that_cannot_be_written_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from absl import logging

    with FullFile(tmp_path / "stderr", "w") as file, plain_messages(), monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", io.TextIOWrapper(file, write_through=True))
        logging.warning("nohup sends this to a full disk")
        sys.stderr.detach()


def test_tensorboard_events_stop_on_a_full_disk_and_log_lines_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logs = MetricsLog(tmp_path)
    tried: list[int] = []

    def full(writer: object, event: bytes) -> NoReturn:
        tried.append(tf.compat.v1.Event.FromString(event).step)
        message = f"{tmp_path}/events.out.tfevents.1.v2; No space left on device\n\tFailed to flush 11 events"
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", full)
    with caplog.at_level(python_logging.WARNING):
        for step in (1, 2):
            logs.write("step", step, {"loss": 0.5})
    logs.close()
    assert tried == [1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: TensorBoard events are no longer written: No space left on device."
    ]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_training_continues_when_neither_checkpoints_nor_logs_can_be_written(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_at_its_end(path: str, mode: str, **rest: Any) -> Any:
        return open_full(path, mode) if mode == "ab" else open(path, mode, **rest)

    monkeypatch.setattr(local, "open", full_at_its_end, raising=False)
    monkeypatch.setattr(local, "write_synced", fail)
    result = train_model(make_run())
    assert len(result.history) == 1
    assert {"final_model.hdf5", "model_max_acc.hdf5", "history.csv"} < set(names_in(result.path))
    assert names_in(result.path / "checkpoints") == []
    assert (result.path / "logs" / "metrics.jsonl").read_bytes() == b""


def test_a_model_that_cannot_be_written_stops_the_run_which_resumes_to_the_same_result(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_model(make_run(training__epochs=2, val_data=None, name="whole"))
    saved: list[str] = []

    def no_room_in_the_second_epoch(path: Path, num_bytes: int) -> None:
        saved.append(path.name)
        if saved.count("model_min_loss.hdf5") == 2:
            raise not_written(path, NO_SPACE, num_bytes)

    run = make_run(training__epochs=2, val_data=None)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.files, "check_room", no_room_in_the_second_epoch)
        with pytest.raises(StorageError, match=r"min_loss.hdf5 could .* Free some space, then continue with --resume."):
            train_model(run)
    (folder,) = Path(run.output_dir).glob("test-*")
    resumed = train_model(run, resume=True)
    assert resumed.path == folder
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert names_in(folder) == names_in(whole.path)


@pytest.mark.parametrize("name", ["history.csv", "curves.png"])
def test_a_history_or_plot_that_cannot_be_written_names_the_cure_and_keeps_the_old_file(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run_folder, "draw_curves", draw_curves)
    folder = run_folder.RunFolder.make(make_run(), {})
    row = {"epoch": 1.0, "loss": 0.5, "learning_rate": 0.1, "seconds": 2.0}
    folder.write_history([row], "title")
    before = (folder.path / name).read_bytes()
    replace = os.replace

    def replace_or_fail(source: Path, target: Path) -> None:
        if target.name == name:
            fail()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)
    with pytest.raises(
        StorageError, match=rf"{name} could not be .* are free. Free some space, then continue with --resume."
    ):
        folder.write_history([row, row], "title")
    assert names_in(folder.path) == ["curves.png", "history.csv", "logs", "model_spec.json"]
    assert (folder.path / name).read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Can't decrement id ref count (file write failed: file descriptor = 3, errno = 28, offset = 0)"),
        OSError("Can't close file (file write failed: errno = 28, error message = 'No space left on device')"),
        NO_SPACE,
    ],
)
def test_the_error_of_a_model_that_does_not_fit_names_the_file_and_the_free_space(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def save_model(model: object, path: Path, description: object) -> None:
        with atomic_write(path) as partial:
            partial.write_bytes(b"half of it")
            raise error

    monkeypatch.setattr(run_folder, "save_model", save_model)
    folder = run_folder.RunFolder.make(make_run(), {})
    with pytest.raises(StorageError, match=r"final_model.hdf5 could not be written: No space left on device; .* free"):
        folder.save_model(tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(3)]), "final_model")
    assert names_in(folder.path) == ["logs", "model_spec.json"]


def test_a_model_file_is_not_begun_without_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    with pytest.raises(StorageError, match=r"model.hdf5 could not be written: .*; 2.0 GB are needed, .* are free"):
        check_room(tmp_path / "model.hdf5", 2_000_000_000)
    assert names_in(tmp_path) == []


def test_a_file_system_that_cannot_preallocate_is_assumed_to_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> NoReturn:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    check_room(tmp_path / "model.hdf5", 2_000_000_000)
    assert names_in(tmp_path) == []


def test_a_run_that_cannot_begin_leaves_no_folder(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", fail)
    run = make_run()
    with pytest.raises(StorageError, match=r"model_spec.json could not be written: No space left on device"):
        run_folder.RunFolder.make(run, {})
    assert names_in(Path(run.output_dir)) == []


def test_a_quota_error_reports_no_free_space(tmp_path: Path) -> None:
    error = not_written(tmp_path / "a", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert is_full(error)
    assert str(error) == f"{tmp_path}/a could not be written: {os.strerror(errno.EDQUOT)}."


PROGRAM = """
import json, os, sys
from pathlib import Path
os.environ["CUDA_VISIBLE_DEVICES"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "", "2"
import model_trainer.quiet_tensorflow
import keras, tensorflow as tf
from model_trainer import *
from model_trainer.errors import StorageError
from model_trainer.pipeline import dataset
from model_trainer.training import progress, run_folder
from model_trainer.training.checkpoints import saver
from model_trainer.training.train import train_model

disk, images = Path(sys.argv[1]), Path(sys.argv[2])
saver.FIRST_AFTER_SECONDS, saver.MAX_TIME_FRACTION, saver.AFTER_FAILURE_SECONDS = 0.0, 1e9, 0.0
progress.SECONDS_BETWEEN_LINES = 0.0  # metrics of every step
run_folder.draw_curves = lambda *arguments: None  # loads matplotlib
# As `short_pipeline` of conftest.py.
plain = tf.autograph.experimental.do_not_convert
dataset.map_with_fallback = lambda start, stop, fast, exact: tf.data.Dataset.range(start, stop).map(plain(exact))


class Filler(keras.callbacks.Callback):
    # Fills the disk after a step, and makes room after another.
    def __init__(self, full_from, full_until):
        super().__init__()
        self.steps, self.full_from, self.full_until = 0, full_from, full_until
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.full_from <= self.steps < self.full_until:
            with open(disk / "filler", "ab", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(256))
                except OSError:
                    pass
        elif self.steps == self.full_until:
            (disk / "filler").unlink()


def run_of(name, filler):
    return Run(
        name=name,
        spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
        weights=None,
        train_data=ImageFolder(images),
        augment=(),
        training=Training(epochs=2, batch_size=1, learning_rate=0.01, schedule=Constant(), precision="float32"),
        callbacks=(filler,),
        output_dir=str(disk),
    )


def losses(result):
    return [row["loss"] for row in result.history]


def partial_files():
    return [path.name for path in disk.rglob("*") if "partial" in path.name]


results = {}
for_a_while = train_model(run_of("for-a-while", Filler(1, 44)))
results["for a while"] = losses(for_a_while)
results["log"] = (for_a_while.path / "logs" / "train.log").read_text()
lines = (for_a_while.path / "logs" / "metrics.jsonl").read_text().splitlines()
results["steps"] = [json.loads(line)["step"] for line in lines]
try:
    train_model(run_of("for-good", Filler(60, 1000)))
except StorageError as error:
    results["error"] = str(error)
results["partial files"] = partial_files()
(disk / "filler").unlink()
results["for good, then resumed"] = losses(train_model(run_of("for-good", Filler(1000, 1000)), resume=True))
print(json.dumps(results))
"""


def why_no_mount() -> str:
    """The empty string where a small file system can be mounted in a namespace of its own."""
    if shutil.which("unshare") is None:
        return "there is no `unshare` here"
    done = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


def copy_numbered(number: int, source: str, target: str) -> None:
    shutil.copy(source, Path(target).with_stem(f"{number}-{Path(target).stem}"))


@pytest.fixture(scope="module")
def on_small_disk(tmp_path_factory: pytest.TempPathFactory, colors: Path) -> dict[str, Any]:
    """The results of a process that trained on a disk of 1 MB which other files filled up."""
    if why := why_no_mount():
        pytest.skip(f"no file system can be mounted: {why}")
    folder = tmp_path_factory.mktemp("small")
    images = folder / "images"
    for number in range(3):
        shutil.copytree(colors / "train", images, copy_function=partial(copy_numbered, number), dirs_exist_ok=True)
    (folder / "disk").mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$3" -c "$4" "$1" "$2"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", folder / "disk", images, sys.executable, PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"messages": done.stderr, **json.loads(done.stdout)}


@pytest.mark.slow
def test_a_real_disk_that_is_full_for_a_while_changes_nothing_but_checkpoints_and_logs(
    on_small_disk: dict[str, Any],
) -> None:
    messages = on_small_disk["messages"]
    assert "checkpoints/epoch-00000-step-0000001 could not be written: No space left on device; " in messages
    assert "Until a checkpoint can be written, --resume would start at the first step." in messages
    warned = [line for line in messages.splitlines() if "for-a-while" in line and "be missing from it" in line]
    assert (
        sum("metrics.jsonl could not be written: No space left on device; 0 bytes are free." in line for line in warned)
        == 1
    )
    assert len(warned) <= 2  # the other is train.log
    assert on_small_disk["steps"][-48:] == [44, 45, *range(45, 91), 90][-48:]  # each epoch's last step is logged twice
    assert "epoch 2/2" in on_small_disk["log"]


@pytest.mark.slow
def test_a_real_disk_that_stays_full_ends_the_run_which_resumes_to_the_same_result(
    on_small_disk: dict[str, Any],
) -> None:
    assert "hdf5 could not be written: No space left on device; 44 kB are needed, " in on_small_disk["error"]
    assert on_small_disk["error"].endswith("Free some space, then continue with --resume.")
    assert on_small_disk["messages"].count("TensorBoard events are no longer written: No space left on device.") >= 1
    assert on_small_disk["partial files"] == []
    assert on_small_disk["for good, then resumed"] == on_small_disk["for a while"]
