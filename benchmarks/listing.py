"""How long does it take to list a folder of 100,000 files?

    .venv/bin/python benchmarks/listing.py    about 30 seconds, of which most makes the files

Prints seconds for `ImageFolder.read`, for `pathlib.rglob`, and for `index_directory`, with which Keras'
`image_dataset_from_directory` lists files, over the same warm folder, and the ratios; median and spread over rounds.
The target is 5 s.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras

from model_trainer import ImageFolder

NUM_CLASSES, PER_CLASS, ROUNDS = 100, 1000, 5


def main() -> None:
    from keras.src.utils.dataset_utils import index_directory

    with tempfile.TemporaryDirectory() as folder:
        for number in range(NUM_CLASSES):
            class_folder = Path(folder) / f"class_{number:03d}"
            class_folder.mkdir()
            for image in range(PER_CLASS):
                (class_folder / f"image_{image:06d}.jpg").touch()

        def keras_lists() -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                return len(index_directory(folder, labels="inferred", formats=(".jpg",))[0])

        ways: dict[str, Callable[[], int]] = {
            "ImageFolder": lambda: len(ImageFolder(folder).read()),
            "rglob": lambda: sum(1 for path in Path(folder).rglob("*.jpg") if path.is_file()),
            f"Keras {keras.__version__}": keras_lists,
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, count in ways.items():
                started = time.perf_counter()
                assert count() == NUM_CLASSES * PER_CLASS
                seconds[name].append(time.perf_counter() - started)
    ours = statistics.median(seconds["ImageFolder"])
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:15} median {median:.2f} s ({spread})   {median / ours:.2f} times ImageFolder's")


if __name__ == "__main__":
    main()
