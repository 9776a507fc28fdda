"""What would safetensors cost as the format of a checkpoint's arrays?

    .venv/bin/python benchmarks/checkpoint_formats.py             about 2 minutes on 2 cores; 500 MB of arrays
    .venv/bin/python benchmarks/checkpoint_formats.py --size 100  100 MB of arrays

Writes and reads the same arrays in turn: in our format, with `safetensors.numpy.save` (bytes, which our storage writes)
and with `safetensors.numpy.save_file` (which supports only the local disk). All three sync the files, store their
SHA-256, and check it on reading; a format without that would be less safe, not faster. Prints for each: seconds, and
their ratio to ours in the same round; the longest time for which another Python thread could not run (a save should not
block training); and the rise of the peak memory. Medians over rounds, and the range. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from model_trainer.storage import files
from model_trainer.training.checkpoints.store import Checkpoint, read_newest, write_checkpoint

try:
    import safetensors.numpy
except ModuleNotFoundError:
    sys.exit("This benchmark needs safetensors. Run: .venv/bin/pip install safetensors")

Arrays = Mapping[str, np.ndarray]


def make_arrays(megabytes: int) -> dict[str, np.ndarray]:
    """Arrays like those of a network with Adam: some large kernels, many small vectors."""
    random = np.random.default_rng(0)
    large = [random.standard_normal((1024, 2500), dtype=np.float32) for _ in range(megabytes // 10)]
    small = [random.standard_normal(512, dtype=np.float32) for _ in range(300)]
    return {f"network/{index}/kernel": array for index, array in enumerate([*large, *small])}


def write_ours(folder: Path, arrays: Arrays) -> None:
    write_checkpoint(folder, Checkpoint(0, 1, {}, arrays))


def read_ours(folder: Path) -> Arrays:
    checkpoint = read_newest(folder)
    assert checkpoint is not None
    return checkpoint.arrays


def write_save(folder: Path, arrays: Arrays) -> None:
    data = safetensors.numpy.save(dict(arrays))
    digest = hashlib.sha256(data).hexdigest()
    files.write_folder(folder / "whole", [("arrays.safetensors", [data]), ("hashes.json", [digest.encode()])])


def read_save(folder: Path) -> Arrays:
    data = (folder / "whole" / "arrays.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == (folder / "whole" / "hashes.json").read_text()
    return safetensors.numpy.load(data)


def write_save_file(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(dict(arrays), folder / "arrays.safetensors")
    with open(folder / "arrays.safetensors", "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    files.write(folder / "hashes.json", digest.encode())


def read_save_file(folder: Path) -> Arrays:
    with open(folder / "arrays.safetensors", "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == (folder / "hashes.json").read_text()
    return safetensors.numpy.load_file(folder / "arrays.safetensors")


FORMATS: dict[str, tuple[Callable[[Path, Arrays], None], Callable[[Path], Arrays]]] = {
    "ours": (write_ours, read_ours),
    "safetensors save": (write_save, read_save),
    "safetensors save_file": (write_save_file, read_save_file),
}


def longest_pause(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds that `action` takes, and the longest for which a thread that wakes each millisecond did not run."""
    done = threading.Event()
    worst = 0.0

    def tick() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    return seconds, worst


def memory_of(name: str, folder: Path, megabytes: int, *, reads: bool) -> float:
    """The rise of the peak memory in megabytes; run in a new process, whose peak nothing else has raised."""
    write, read = FORMATS[name]
    arrays = {} if reads else make_arrays(megabytes)
    before = peak_kib()
    result = read(folder) if reads else write(folder, arrays)
    if reads:
        assert result is not None
        sum(float(array.ravel()[-1]) for array in result.values())
    return (peak_kib() - before) * 1024 / 1e6


def peak_kib() -> int:
    """The peak memory of this process; that of `getrusage` would include its parent's."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=500, help="megabytes of arrays")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arrays = make_arrays(arguments.size)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name.replace(" ", "-") for name in FORMATS}
        measured: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(arguments.rounds + 1):  # the first one warms up
            for name in [*FORMATS][:: 1 if number % 2 else -1]:
                write, read = FORMATS[name]
                folders[name].mkdir(exist_ok=True)
                actions = {"write": partial(write, folders[name], arrays), "read": partial(read, folders[name])}
                for kind, action in actions.items():
                    times = longest_pause(action)
                    if number:
                        measured.setdefault((name, kind), []).append(times)
        for name, (_, read) in FORMATS.items():
            for key, array in read(folders[name]).items():
                assert array.tobytes() == arrays[key].tobytes(), (name, key)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for kind in ("write", "read"):
                print(f"\n{kind} {arguments.size} MB")
                for name in FORMATS:
                    times = measured[name, kind]
                    pairs = zip(times, measured["ours", kind], strict=True)
                    ratios = [mine[0] / theirs[0] for mine, theirs in pairs]
                    job = (name, folders[name], arguments.size)
                    memory = pool.apply(memory_of, job, {"reads": kind == "read"})
                    print(f"  {name:22} {statistics.median(each[0] for each in times):.2f} s", end="")
                    print(f", ratio {spread(ratios, '.2f')}", end="")
                    print(f", longest pause {spread([1000 * each[1] for each in times], '.0f')} ms", end="")
                    print(f", {memory:.0f} MB of memory")


if __name__ == "__main__":
    main()
