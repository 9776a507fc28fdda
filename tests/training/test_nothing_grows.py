"""Threads, processes and files end with their run, and a step does not leak memory."""

from __future__ import annotations

import collections
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from model_trainer import Cosine, Manifest, Run
from model_trainer.training.checkpoints import saver
from model_trainer.training.train import train_model

MakeRun = Callable[..., Run]

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="there is no /proc to look into")


class AtStep(keras.callbacks.Callback):
    """Does something at the end of the second step."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do = do

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if batch == 1:
            self.do()


class Broken(Exception):
    """What a user's callback may raise."""


def fail() -> None:
    raise Broken


def threads_of_process() -> collections.Counter[str]:
    """How many threads the kernel sees, by name."""
    return collections.Counter((task / "comm").read_text() for task in Path("/proc/self/task").iterdir())


def children() -> list[str]:
    lists = Path("/proc/self/task").glob("*/children")
    return [pid for each in lists for pid in each.read_text().split()]


def open_files() -> collections.Counter[str]:
    """What the process holds open, by target; descriptors that are not files by their kind."""
    counts: collections.Counter[str] = collections.Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            counts[os.readlink(f"/proc/self/fd/{descriptor}").partition(":[")[0]] += 1
        except FileNotFoundError:  # that of the listing itself
            continue
    return counts


@needs_proc
@pytest.mark.usefixtures("eager_steps")  # what is compiled starts nothing of its own
def test_threads_processes_and_files_end_with_the_run(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(saver, "MAX_TIME_FRACTION", 1e9)  # a save is always under way
    train_model(make_run(val_data=None))  # TensorFlow's own pools live as long as the process
    gc.collect()
    python_threads, kernel_threads, files = set(threading.enumerate()), threads_of_process(), open_files()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    for do in (lambda: None, fail, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        try:
            train_model(make_run(callbacks=(AtStep(do),), val_data=None))
        except Broken:
            assert do is fail
        assert set(threading.enumerate()) <= python_threads  # before a collection, which would end some
        gc.collect()
        assert not threads_of_process() - kernel_threads
        assert not open_files() - files
        assert children() == []
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers


class _Malloc(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


class InUse(keras.callbacks.Callback):
    """Bytes that C and C++ hold after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: list[int] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        gc.collect()
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Malloc
        self.measured.append(ask().uordblks)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc counts the bytes"
)
def test_a_step_does_not_leak_memory(make_run: MakeRun, colors: Path, tmp_path: Path) -> None:
    # TensorFlow keeps a tensor of every plain Python number that it is given: 770 bytes for a step's number or rate.
    images = sorted((colors / "train").glob("*/*.png"))
    rows = [f"{path},{path.parent.name}" for path in images] * 12
    (tmp_path / "train.csv").write_text("\n".join(["filename,label", *rows]))
    in_use = InUse()
    run = make_run(
        train_data=Manifest(tmp_path / "train.csv"),
        val_data=None,
        callbacks=(in_use,),
        training__epochs=5,
        training__batch_size=1,
        training__schedule=Cosine(),
    )
    train_model(run)
    growth = [after - before for before, after in zip(in_use.measured[1:], in_use.measured[2:], strict=False)]
    assert min(growth) / len(rows) < 150  # bytes for each step
