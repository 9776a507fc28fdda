"""How long does it take to read a manifest of a million rows, and how much memory does it need?

    .venv/bin/python benchmarks/manifest.py    about two minutes of one core

Prints for CSV, JSON Lines and JSON, each in a process of its own: the seconds of `Manifest.read` and of the standard
library alone (`csv.reader`, `json.loads` of each line, `json.load`) going through the same file, and their ratio; the
bytes per example that the `Examples` hold beside the path; and the peak of the process above what it had before,
per example, with the path. Median and spread over rounds. The target is at most 120 bytes beside the path.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files
from model_trainer.sources.manifest import Manifest

NUM_ROWS, NUM_CLASSES, ROUNDS = 1_000_000, 1000, 3


def records() -> Iterator[dict[str, object]]:
    for number in range(NUM_ROWS):
        yield {
            "filename": f"class_{number % NUM_CLASSES:03d}/image_{number:07d}.jpg",
            "label": f"class_{number % NUM_CLASSES:03d}",
            "weight": 0.5,
            "crop": [number % 100, 20, 300, 200],
            "group": f"patient-{number // 4}",
        }


def write(folder: Path) -> None:
    with (
        open(folder / "rows.csv", "w", newline="") as table,
        open(folder / "rows.jsonl", "w") as lines,
        open(folder / "rows.json", "w") as whole,
    ):
        writer = csv.DictWriter(table, ["filename", "label", "weight", "crop", "group"])
        writer.writeheader()
        for number, record in enumerate(records()):
            writer.writerow(record)
            text = json.dumps(record)
            lines.write(f"{text}\n")
            whole.write(f"{',' if number else '['}{text}\n")
        whole.write("]")


def go_through(path: Path) -> int:
    """The rows of the file, by the standard library alone."""
    with open(path, newline="") as file:
        if path.suffix == ".csv":
            return sum(1 for _ in csv.reader(file)) - 1
        if path.suffix == ".jsonl":
            return sum(1 for line in file if json.loads(line))
        return len(json.load(file))


def held_bytes(examples: Examples) -> int:
    """What the table holds beside the text of the paths."""
    assert isinstance(examples.images, Files)
    columns = [examples.rows, examples.labels, examples.weights, examples.crops, examples.groups]
    return sum(column.nbytes for column in [*columns, examples.images.paths.starts] if column is not None)


def measure(path: Path) -> None:
    # On Linux ru_maxrss is in kilobytes, on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    examples = Manifest(str(path)).read()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    paths = len(examples.images.paths.data) / NUM_ROWS
    seconds: dict[str, list[float]] = {"ours": [], "alone": []}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        assert len(Manifest(str(path)).read()) == NUM_ROWS
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        assert go_through(path) == NUM_ROWS
        seconds["alone"].append(time.perf_counter() - started)
    ours, alone = statistics.median(seconds["ours"]), statistics.median(seconds["alone"])
    print(
        f"{path.suffix:6}  {ours:5.2f} s ({min(seconds['ours']):.2f} to {max(seconds['ours']):.2f})  "
        f"{ours / alone:4.1f} times the {alone:.2f} s of the standard library   "
        f"held {held_bytes(examples) / NUM_ROWS:.0f} bytes per example beside the path   "
        f"peak {peak / NUM_ROWS:.0f} bytes per example with the path of {paths:.0f}",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for name in ("rows.csv", "rows.jsonl", "rows.json"):
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(Path(folder) / name,))
            process.start()
            process.join()
            assert process.exitcode == 0


if __name__ == "__main__":
    main()
