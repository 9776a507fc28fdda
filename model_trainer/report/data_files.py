"""What the report shows of the data: class counts, and examples with their augmented versions."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from model_trainer.images.thumbnail import jpeg_of
from model_trainer.messages import as_utf8
from model_trainer.report.preview import Seen
from model_trainer.sources.examples import Examples
from model_trainer.storage import files

__all__ = ["write_data_files"]

SIDE = 160  # pixels
FOLDER = "examples"


def write_data_files(folder: PurePath, train: Examples, val: Examples | None, seen: Sequence[Seen]) -> None:
    """Writes `data.json` and the images in `examples/` to the report's folder, which exists.

    Args:
        train, val: the data of the run.
        seen: some training examples with their augmented versions.

    Raises:
        StorageError: a file cannot be written.
    """
    files.make_folder(folder / FOLDER)
    content = {
        "train": _summary(train),
        "val": None if val is None else _summary(val),
        "examples": [_write_example(folder, number, each) for number, each in enumerate(seen)],
    }
    files.write_text(folder / "data.json", json.dumps(as_utf8(content), indent=1) + "\n")


def _summary(examples: Examples) -> dict[str, Any]:
    counts = dict(zip(examples.classes, examples.counts().tolist(), strict=True))
    return {"origin": examples.origin, "images": len(examples), "counts": counts}


def _write_example(folder: PurePath, number: int, seen: Seen) -> dict[str, Any]:
    original = None
    if seen.original is not None:
        original = f"{FOLDER}/{number}.jpg"
        files.write(folder / original, jpeg_of(seen.original, SIDE))
    augmented = []
    for position, image in enumerate(seen.images if original is not None else ()):
        augmented.append(f"{FOLDER}/{number}-{position}.jpg")
        files.write(folder / augmented[-1], _jpeg(image))
    return {
        "name": seen.name,
        "label": seen.label,
        "original": original,
        "augmented": augmented,
        "labels": list(seen.labels[: len(augmented)]),
    }


def _jpeg(image: np.ndarray) -> bytes:
    """The network's input image as JPEG; a small one is enlarged by an integer factor."""
    pixels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)
    factor = max(1, SIDE // max(pixels.shape[:2]))
    enlarged = Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))
    enlarged.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    enlarged.save(file, "JPEG", quality=80)
    return file.getvalue()
