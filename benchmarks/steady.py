"""Does the memory of a long training grow?

    .venv/bin/python benchmarks/steady.py                 about 3 minutes
    .venv/bin/python benchmarks/steady.py --minutes 15    long enough: 3 minutes are still part of the warm-up
    .venv/bin/python benchmarks/steady.py --trace         also prints which lines of Python hold more at the end; slower

A toy network, so that many steps fit into the time: batches of 8 photos of the sample with random flips, validation,
checkpoints as often as possible, best models and curves after each epoch, a progress bar (to /dev/null). The run is
stopped by a signal after a sixth of the time and resumed; only the resumed part is measured. Prints after each epoch,
when garbage has been collected and free pages returned: resident memory, its anonymous part, the memory allocated by C
and C++ (all in MB), and the numbers of open files, threads and child processes.

Finally prints for each the least-squares slope per 1,000 steps with its standard error, the same extrapolated to 3
hours of such steps, and the median of the differences between epochs, which is insensitive to jumps: `tf.data` doubles
its buffers, up to 512 batches, when the machine is busy. An epoch, here of 1,000 steps, adds some kB: its row of the
history, which is in every checkpoint and plot, and what TensorFlow, rich and matplotlib store for it. The target is
that steps add nothing, and that the numbers of files, threads and processes do not change. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import signal
import tempfile
import time
import tracemalloc
from pathlib import Path

os.environ["FORCE_COLOR"] = "1"  # rich then draws its progress bar without a terminal

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np

from model_trainer import Cosine, ImageFolder, Manifest, ModelSpec, RandomFlip, Run, Training
from model_trainer.sources.sample import unpack_sample
from model_trainer.training.checkpoints import saver
from model_trainer.training.train import train_model

WARM_UP_FRACTION = 0.25  # of the resumed part, in which pools and caches fill up
HOURS = 3.0
BATCH_SIZE = 8
TIMES_EACH_IMAGE = 4  # an epoch of 1,000 steps
COLUMNS = ("RAM", "anonymous", "malloc", "files", "threads", "children")
IN_MB = COLUMNS[:3]


class Malloc(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def measure() -> tuple[float, ...]:
    """The values of `COLUMNS` for this process."""
    gc.collect()
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    library.mallinfo2.restype = Malloc
    allocated = library.mallinfo2()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory = [int(status[name].split()[0]) / 1000 for name in ("VmRSS", "RssAnon")]
    children = sum(len(each.read_text().split()) for each in Path("/proc/self/task").glob("*/children"))
    files = len(os.listdir("/proc/self/fd"))
    memory.append((allocated.uordblks + allocated.hblkhd) / 1e6)
    return *memory, float(files), float(status["Threads"]), float(children)


class Watch(keras.callbacks.Callback):
    """Measures after each epoch of the resumed part, and ends both parts when their time is over."""

    def __init__(self, seconds: float, steps_per_epoch: int, *, trace: bool) -> None:
        super().__init__()
        self.seconds, self.steps_per_epoch, self.trace = seconds, steps_per_epoch, trace
        self.started = time.monotonic()
        self.is_resumed = False
        self.rows: list[tuple[float, ...]] = []
        self.before: tracemalloc.Snapshot | None = None

    def get_state(self) -> dict[str, object]:
        return {}

    def set_state(self, state: dict[str, object]) -> None:
        self.is_resumed = True

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        passed = time.monotonic() - self.started
        if not self.is_resumed:
            if passed > self.seconds / 6:
                os.kill(os.getpid(), signal.SIGUSR1)
            return
        row = (float((epoch + 1) * self.steps_per_epoch), passed, *measure())
        self.rows.append(row)
        print(f"step {row[0]:9,.0f}  {passed:5.0f} s  " + "  ".join(map("{:10.2f}".format, row[2:])), flush=True)
        if self.trace and self.before is None and passed > self.seconds * (1 / 6 + 5 / 6 * WARM_UP_FRACTION):
            tracemalloc.start(8)
            self.before = tracemalloc.take_snapshot()
        if passed > self.seconds:
            self.model.stop_training = True


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The least-squares slope of `y` over `x`, and its standard error."""
    centered = x - x.mean()
    slope = float(centered @ (y - y.mean()) / (centered @ centered))
    residuals = y - y.mean() - slope * centered
    return slope, float(np.sqrt(residuals @ residuals / (len(x) - 2) / (centered @ centered)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    saver.FIRST_AFTER_SECONDS, saver.MAX_TIME_FRACTION = 0.0, 1e9
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as nowhere:
        folder = Path(name) / "sample"
        unpack_sample(folder)
        images = sorted((folder / "train").glob("*/*"))
        rows = [f"{path},{path.parent.name}" for path in images] * TIMES_EACH_IMAGE
        (folder / "train.csv").write_text("\n".join(["filename,label", *rows]))
        watch = Watch(arguments.minutes * 60, len(rows) // BATCH_SIZE, trace=arguments.trace)
        run = Run(
            name="steady",
            spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
            weights=None,
            train_data=Manifest(folder / "train.csv"),
            val_data=ImageFolder(folder / "val"),
            augment=(RandomFlip(),),
            training=Training(epochs=10**6, batch_size=BATCH_SIZE, schedule=Cosine(), precision="float32"),
            callbacks=(watch,),
            output_dir=str(folder / "output"),
        )
        with contextlib.redirect_stderr(nowhere):
            train_model(run)
            print(f"{'':25}  " + "  ".join(map("{:>10}".format, COLUMNS)))
            train_model(run, resume=True)
    if watch.before is not None:
        for line in tracemalloc.take_snapshot().compare_to(watch.before, "lineno")[:12]:
            print(line)
    rows = np.array(watch.rows[round(len(watch.rows) * WARM_UP_FRACTION) :])
    per_second = (rows[-1, 0] - rows[0, 0]) / (rows[-1, 1] - rows[0, 1])
    thousands = HOURS * 3600 * per_second / 1000
    print(
        f"\n{len(rows)} measurements, {per_second:.0f} steps/s; {HOURS:.0f} hours of them are {thousands:,.0f} thousand"
    )
    for column, title in enumerate(COLUMNS, start=2):
        per_step, error = slope(rows[:, 0], rows[:, column])
        unit = " MB" if title in IN_MB else ""
        median = float(np.median(np.diff(rows[:, column]) / np.diff(rows[:, 0])))
        print(
            f"{title:10} {per_step * 1000:+.4f} ± {error * 1000:.4f}{unit} for 1,000 steps, "
            f"{per_step * 1000 * thousands:+.1f} ± {error * 1000 * thousands:.1f}{unit} in {HOURS:.0f} hours; "
            f"median {median * 1000:+.4f}{unit}"
        )


if __name__ == "__main__":
    main()
