"""How much memory does an example take, and how long does the first batch take, with millions of examples?

    .venv/bin/python benchmarks/examples.py [--millions 2]        about 1 minute

A table of files with single labels, each time in a new process, whose memory before and after is compared. Compared
with the usual code: `tf.data.Dataset.from_tensor_slices((paths, labels))` with a shuffle buffer as large as the data.
Prints bytes per example in addition to the length of its path; the target is at most 120.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

OURS = """
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.sources.examples import Examples
from model_trainer.specs import ModelSpec

paths = (path_of(number) for number in range(COUNT))
before = held()
examples = Examples.of_files(paths, np.arange(COUNT, dtype=np.int32) % 100, CLASSES, "benchmark")
table = held()
pipeline = Pipeline(examples, ModelSpec(target_size=[8, 8, 3]), 4, BadImages(COUNT, 1.0, COUNT))
started = time.monotonic()
next(iter(pipeline.training(epochs=1)))
"""

THEIRS = """
before = table = held()
paths = [path_of(number) for number in range(COUNT)]
labels = np.arange(COUNT, dtype=np.int32) % 100
started = time.monotonic()
dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(COUNT).batch(4)
batches = iter(dataset)
next(batches)
"""

PROGRAM = """
import ctypes, gc, os, time
import model_trainer.quiet_tensorflow
import numpy as np
import tensorflow as tf

COUNT = {count}
CLASSES = tuple(str(number) for number in range(100))
FILE = os.path.join({folder!r}, "image-" + "0" * 20 + ".png")
def path_of(number):
    return FILE[:5] + FILE[5:]  # a new string object each time, for the same file, so that it can be read
def held():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
tf.data.Dataset.range(2).shuffle(2).batch(2).get_single_element()  # memory that TensorFlow holds in any case
from absl import logging; logging.set_verbosity(logging.ERROR)
{body}
print((table - before) / COUNT, (held() - before) / COUNT, time.monotonic() - started, len(path_of(0)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=2.0)
    count = int(parser.parse_args().millions * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (8, 8)).save(Path(folder) / f"image-{'0' * 20}.png")
        measure(count, folder)


def measure(count: int, folder: str) -> None:
    root = Path(__file__).parents[1]
    for name, body in (("ours", OURS), ("tf.data from lists, shuffled", THEIRS)):
        program = PROGRAM.format(count=count, body=body, folder=folder)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
        if done.returncode:
            sys.exit(done.stderr)
        table, all_of_it, seconds, length = (float(word) for word in done.stdout.split())
        parts = f"; the table alone {table - length:.0f}" if table else ""
        print(
            f"{name}: {all_of_it - length:.0f} bytes for each of {count:,} examples in addition to the {length:.0f} of "
            f"its path{parts}; first batch after {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
