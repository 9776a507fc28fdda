"""How fast does `doctor` read images, compared with Pillow, which only decodes the same files completely?

    .venv/bin/python benchmarks/doctor.py    about half a minute on 2 cores

2,000 JPEGs of 500 x 375 pixels, in the page cache, three threads each, in turn. Prints images per second and the ratio,
median and spread over rounds; and how long it takes to read a manifest of 200,000 rows.
"""

from __future__ import annotations

import io
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from model_trainer.diagnosis.data.splits import find_splits
from model_trainer.diagnosis.data.survey import survey_images
from model_trainer.images.limits import MAX_PIXELS

from rounds import spread  # isort: skip

NUM_IMAGES, NUM_ROWS, ROUNDS = 2000, 200_000, 3


def decode(path: Path) -> None:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()


def main() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "a").mkdir()
        for number in range(NUM_IMAGES):
            noise = random.normal(128, 20, (375, 500, 3)) + random.integers(-60, 60, 3)
            pixels = np.clip(noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "a" / f"{number}.jpg", quality=90)
        (folder / "data.csv").write_text(
            "filename,label\n" + "".join(f"a/{number % NUM_IMAGES}.jpg,a\n" for number in range(NUM_ROWS))
        )
        splits, files = find_splits(temporary), sorted((folder / "a").iterdir())
        ours, pillow, listing = [], [], []
        for number in range(1 + ROUNDS):
            started = time.perf_counter()
            survey_images(splits, MAX_PIXELS)
            surveyed = time.perf_counter()
            with ThreadPoolExecutor(3) as threads:
                list(threads.map(decode, files))
            decoded = time.perf_counter()
            find_splits(str(folder / "data.csv"))
            if number:  # the first reads from the disk
                ours.append(NUM_IMAGES / (surveyed - started))
                pillow.append(NUM_IMAGES / (decoded - surveyed))
                listing.append(time.perf_counter() - decoded)
    print(f"doctor {spread(ours, 0)} images/s; Pillow {spread(pillow, 0)}")
    ratios = [mine / other for mine, other in zip(ours, pillow, strict=True)]
    print(f"doctor / Pillow: {spread(ratios, 2)}; {NUM_ROWS:,} rows listed in {spread(listing, 1)} s")


if __name__ == "__main__":
    main()
