"""How long does it take to read a manifest of a million rows, and how much memory does it need?

    .venv/bin/python benchmarks/manifest.py    about eight minutes of one core

Prints for each file, in a new process, the seconds of `Manifest.read` with pyarrow and with the exact reader, which
goes through the rows one by one, in turn, and their ratio; and the seconds that it takes only to parse the same file:
with the standard library (`csv.reader`, `json.loads` of each line, `json.load`), and with pyarrow alone (`read_csv`
with all columns as text, `read_json`, `read_table`), the lower bound. Also the bytes per example that the `Examples`
hold in addition to the path, and the rise of the peak memory per example, including the path. Medians and the spread
over rounds. The targets: 3 times faster for CSV and JSON Lines, and at most 120 bytes in addition to the path.

The tables: "rows" with file, label, weight, crop and group, in which crops and weights repeat; "different" with a
different weight, crop and group in each row; and "two_columns" with only file and label.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files
from model_trainer.sources.manifest import Manifest

NUM_ROWS, NUM_CLASSES, ROUNDS = 1_000_000, 1000, 3
FILES = (
    *("rows.csv", "different.csv", "two_columns.csv", "rows.jsonl", "different.jsonl", "two_columns.jsonl"),
    *("rows.parquet", "rows.json"),
)


def records(kind: str) -> Iterator[dict[str, object]]:
    numbers = random.Random(0)
    for number in range(NUM_ROWS):
        record: dict[str, object] = {
            "filename": f"class_{number % NUM_CLASSES:03d}/image_{number:07d}.jpg",
            "label": f"class_{number % NUM_CLASSES:03d}",
        }
        if kind == "rows":
            record |= {"weight": 0.5, "crop": [number % 100, 20, 300, 200], "group": f"patient-{number // 4}"}
        elif kind == "different":
            crop = [number % 1000, number // 1000, 300 + number % 7, 200]
            record |= {"weight": numbers.random(), "crop": crop, "group": f"patient-{number}"}
        yield record


def write(path: Path) -> None:
    if path.suffix == ".parquet":
        write(path.with_suffix(".jsonl"))
        pa.parquet.write_table(pa.json.read_json(path.with_suffix(".jsonl")), path)
        return
    with open(path, "w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(next(records(path.stem))))
            writer.writeheader()
            writer.writerows(records(path.stem))
        elif path.suffix == ".jsonl":
            file.writelines(f"{json.dumps(record)}\n" for record in records(path.stem))
        else:
            json.dump(list(records(path.stem)), file)


def with_standard_library(path: Path) -> int:
    """Parses the file; returns the number of rows."""
    with open(path, newline="") as file:
        if path.suffix == ".csv":
            return sum(1 for _ in csv.reader(file)) - 1
        if path.suffix == ".jsonl":
            return sum(1 for line in file if json.loads(line))
        return len(json.load(file))


def with_pyarrow_alone(path: Path) -> int:
    """Reads the file into columns in memory; returns the number of rows."""
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            types = dict.fromkeys(next(csv.reader(file)), pa.string())
        return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=types)).num_rows
    return (pa.json.read_json if path.suffix == ".jsonl" else pa.parquet.read_table)(path).num_rows


def read(path: Path) -> Examples:
    return Manifest(str(path)).read()


def read_exactly(path: Path) -> Examples:
    with mock.patch("model_trainer.sources.manifest.batches.gather_batches", return_value=False):
        return read(path)


def held_bytes(examples: Examples) -> int:
    """The bytes of the arrays of the examples, without the text of the paths."""
    assert isinstance(examples.images, Files)
    columns = [examples.rows, examples.labels, examples.weights, examples.crops, examples.groups]
    return sum(column.nbytes for column in [*columns, examples.images.paths.starts] if column is not None)


def measure(path: Path) -> None:
    # On Linux ru_maxrss is in kilobytes, on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    examples = read(path)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    held = held_bytes(examples)
    paths = len(examples.images.paths.data) / NUM_ROWS
    fingerprint = examples.labels.tobytes() + examples.weights.tobytes()
    del examples

    readers: dict[str, Callable[[Path], object]] = {"Manifest": read}
    if path.suffix != ".json":
        readers |= {"row by row": read_exactly, "pyarrow alone": with_pyarrow_alone}
    if path.suffix != ".parquet":
        readers["standard library alone"] = with_standard_library
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, reader in readers.items():
            started = time.perf_counter()
            result = reader(path)
            seconds[name].append(time.perf_counter() - started)
            if isinstance(result, Examples):
                assert result.labels.tobytes() + result.weights.tobytes() == fingerprint
            else:
                assert result == NUM_ROWS
            del result
    print(f"{path.name}  {path.stat().st_size / 1e6:.0f} MB")
    ours = seconds["Manifest"]
    for name, each in seconds.items():
        ratios = [theirs / our for theirs, our in zip(each, ours, strict=True)]
        print(
            f"  {name:22}  {statistics.median(each):6.2f} s ({min(each):.2f} to {max(each):.2f})"
            + ("" if name == "Manifest" else f"  {statistics.median(ratios):5.2f} times Manifest's")
            + ("" if name == "Manifest" else f" ({min(ratios):.2f} to {max(ratios):.2f})")
        )
    print(
        f"  held {held / NUM_ROWS:.0f} bytes per example in addition to the path; "
        f"peak {peak / NUM_ROWS:.0f} bytes per example including the path of {paths:.0f}",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            path = Path(folder) / name
            # Both in separate processes: a new process inherits the peak memory of the process that starts it.
            for work in (write, measure):
                process = multiprocessing.get_context("spawn").Process(target=work, args=(path,))
                process.start()
                process.join()
                assert process.exitcode == 0
            path.unlink()


if __name__ == "__main__":
    main()
