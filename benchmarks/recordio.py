"""How fast are images read from a RecordIO file, compared with the same images as files in folders?

    .venv/bin/python benchmarks/recordio.py    about 2 minutes on 2 cores

2,000 JPEG files of 256 x 256 pixels (gradients and noise, made in a temporary folder) are packed by `write_recordio`.
Prints, with a warm page cache, bytes per second of reading all encoded images in random order, images per second of the
pipeline at 224 x 224, and the ratio of the `.rec` to the folder; then microseconds per record to find the records in a
file of 1,000,000 small ones, with and without `.idx`. Median and spread over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np
from PIL import Image

from model_trainer import ImageFolder, ModelSpec
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.sources.examples import Examples
from model_trainer.sources.recordio import RecordIO, write_recordio
from model_trainer.sources.recordio.index import find_records

NUM_IMAGES, SIZE, BATCH_SIZE = 2000, 256, 32
PASSES = 5  # passes over all images in one round of raw reading; a pass takes only milliseconds
NUM_RECORDS = 1_000_000
SPEC = ModelSpec(target_size=[224, 224, 3])


def make_folder(folder: Path) -> None:
    """Writes JPEG files of gradients and noise into two class folders."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    gradients = np.stack([x, y, (x + y) / 2], axis=-1) * 255 / SIZE
    for number in range(NUM_IMAGES):
        pixels = np.clip(gradients + random.normal(0, 12, gradients.shape), 0, 255).astype(np.uint8)
        class_folder = folder / f"class_{number % 2}"
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(class_folder / f"{number:05d}.jpg", quality=90)


def bytes_per_second(examples: Examples, order: np.ndarray) -> float:
    started = time.perf_counter()
    num_bytes = sum(len(examples.images.read(row)) for row in order.tolist() * PASSES)
    return num_bytes / (time.perf_counter() - started)


def images_per_second(pipeline: Pipeline) -> float:
    """The rate in one pass, without its first batch, which also waits for the threads to start."""
    batches = iter(pipeline.validation())
    next(batches)
    started = time.perf_counter()
    num_images = sum(len(batch[0]) for batch in batches)
    return num_images / (time.perf_counter() - started)


def make_many(path: Path) -> None:
    """Writes records of 36 bytes, so that reading their content takes no time."""
    fields = [("magic", "<u4"), ("length", "<u4"), ("header", "<u4", 6), ("image", "<u4")]
    records = np.zeros(NUM_RECORDS, np.dtype(fields))
    records["magic"], records["length"] = 0xCED7230A, 28
    records.tofile(path)


def microseconds_to_find(path: Path) -> float:
    started = time.perf_counter()
    assert len(find_records(str(path), None)) == NUM_RECORDS
    return (time.perf_counter() - started) / NUM_RECORDS * 1e6


def side_by_side(ways: dict[str, Callable[[], float]], rounds: int, unit: str, scale: float = 1.0) -> None:
    """Prints the result of each of two measurements, and the ratio of the first to the second."""
    for measure in ways.values():
        measure()  # traces, and fills the page cache
    results: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        # Alternately forwards and backwards, so that a machine that slows down slows both equally.
        for name in list(ways) if number % 2 == 0 else list(reversed(ways)):
            results[name].append(ways[name]() / scale)
    for name, values in results.items():
        spread = f"{min(values):.4g} to {max(values):.4g}"
        print(f"{name:<18} median {statistics.median(values):.4g} {unit} ({spread})")
    first, second = results
    ratios = [a / b for a, b in zip(results[first], results[second], strict=True)]
    print(f"{first} / {second}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_folder(folder / "images")
        files = ImageFolder(folder / "images").read()
        write_recordio(files, folder / "train.rec")
        records = RecordIO(folder / "train.rec").read()
        order = np.random.default_rng(1).permutation(NUM_IMAGES)
        side_by_side(
            {
                "rec, raw": lambda: bytes_per_second(records, order),
                "folder, raw": lambda: bytes_per_second(files, order),
            },
            arguments.rounds,
            "GB/s",
            scale=1e9,
        )
        pipelines = {
            name: Pipeline(examples, SPEC, BATCH_SIZE, BadImages(0, 0.0, NUM_IMAGES))
            for name, examples in (("rec, pipeline", records), ("folder, pipeline", files))
        }
        side_by_side(
            {name: lambda pipeline=pipeline: images_per_second(pipeline) for name, pipeline in pipelines.items()},
            arguments.rounds,
            "images/s",
        )
        for name in ("without", "with"):
            make_many(folder / f"{name}.rec")
        with open(folder / "with.idx", "w", encoding="ascii") as index:
            index.writelines(f"{number}\t{36 * number}\n" for number in range(NUM_RECORDS))
        side_by_side(
            {
                "find, no .idx": lambda: microseconds_to_find(folder / "without.rec"),
                "find, .idx": lambda: microseconds_to_find(folder / "with.rec"),
            },
            arguments.rounds,
            "us/record",
        )


if __name__ == "__main__":
    main()
