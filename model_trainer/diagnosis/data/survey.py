"""Reads every image of a data set once, in parallel, and records about 90 bytes of facts about each."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from PIL import Image

from model_trainer.diagnosis.data.perceptual_hash import NUM_COLORS, perceptual_hash
from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.errors import StorageError
from model_trainer.images.facts import ImageFacts, image_facts
from model_trainer.images.pillow import FORMATS, pixels_of
from model_trainer.storage.read import why_not_read

__all__ = ["State", "Survey", "survey_images"]

_COLUMNS = np.dtype(
    [
        ("state", np.uint8),
        ("num_bytes", np.int64),
        # Of bytes and crop. Two of 50 million images have the same one by chance in one of 10,000 data sets.
        ("digest", np.uint64),
        ("format", np.uint8),  # index into FORMATS; len(FORMATS) for any other format
        ("width", np.int32),  # of the upright image
        ("height", np.int32),
        ("bits", np.uint8),
        ("orientation", np.uint8),
        ("is_cmyk", np.bool_),
        ("is_animated", np.bool_),
        ("is_crop_outside", np.bool_),  # the crop reaches beyond the image
        ("is_blank", np.bool_),
        ("difference_hash", np.uint64),
        ("colors", np.uint8, (NUM_COLORS,)),
    ]
)
_WHITE = (255, 255, 255)
_MIN_SIDE = 96  # pixels; a perceptual hash is computed from 9 x 8 cells


class State(IntEnum):
    """Whether an image can be read, and if not, why."""

    READABLE = 0
    MISSING = 1
    INACCESSIBLE = 2  # the file exists and cannot be opened
    EMPTY = 3
    TRUNCATED = 4
    BOMB = 5
    DAMAGED = 6


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts about every image of a data set. An image's index counts from 0 through all splits.

    Attributes:
        splits: the splits of the data set.
        columns: structured array, one row for each image, see `_COLUMNS`.
        reasons: why an image cannot be read, by its index.
    """

    splits: tuple[DataSplit, ...]
    columns: np.ndarray
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def find(self, image: int) -> tuple[DataSplit, int]:
        """The split of an image, and the image's index within that split."""
        for split in self.splits:
            if image < len(split.examples):
                return split, image
            image -= len(split.examples)
        raise IndexError(image)

    def name(self, image: int) -> str:
        """The image's name in messages: a path, or "train.rec#7"."""
        split, index = self.find(image)
        return split.examples.name(index)

    def read(self, image: int) -> bytes:
        """The encoded bytes of the image. Raises OSError if they cannot be read."""
        split, index = self.find(image)
        return split.examples.images.read(int(split.examples.rows[index]))

    def crop(self, image: int) -> tuple[int, int, int, int] | None:
        """The crop region `(top, left, height, width)` of the upright image; None for the whole image."""
        split, index = self.find(image)
        if split.examples.crops is None or split.examples.crops[index][2] == 0:
            return None
        top, left, height, width = (int(edge) for edge in split.examples.crops[index])
        return top, left, height, width

    def label(self, image: int) -> str:
        """The image's class name, or its tags separated by commas; empty if it has none."""
        split, index = self.find(image)
        labels = split.examples.labels
        if isinstance(labels, np.ndarray):
            return split.examples.classes[labels[index]]
        row = slice(int(labels.starts[index]), int(labels.starts[index + 1]))
        if labels.exclusive:
            probabilities = zip(labels.classes[row], labels.values[row], strict=True)
            return ", ".join(f"{split.examples.classes[each]} {value:.2f}" for each, value in probabilities)
        return ", ".join(
            sorted(split.examples.classes[each] for each in labels.classes[row][labels.values[row] >= 0.5])
        )

    def select(self, keep: np.ndarray) -> Survey:
        """A survey of only the images where `keep`, bool `(num_images,)`, is True."""
        ends = np.cumsum([len(split.examples) for split in self.splits])[:-1]
        splits = tuple(
            replace(split, examples=split.examples.take(np.flatnonzero(keep_of_split)))
            for split, keep_of_split in zip(self.splits, np.split(keep, ends), strict=True)
        )
        new_index = np.cumsum(keep) - 1
        reasons = {int(new_index[image]): reason for image, reason in self.reasons.items() if keep[image]}
        return Survey(splits, self.columns[keep], reasons)


def survey_images(
    splits: Sequence[DataSplit], max_pixels: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Survey:
    """Reads and decodes all images in parallel. A bad image is recorded and never raises.

    Args:
        splits: the splits whose images are read.
        max_pixels: larger images are not decoded.
        on_progress: called a few times a second with the number of images done and of all images.
    """
    total = sum(len(split.examples) for split in splits)
    survey = Survey(tuple(splits), np.zeros(total, _COLUMNS), {})
    survey.columns["format"] = len(FORMATS)
    indices = itertools.count()  # next() is atomic, so that each index goes to one thread
    stop = threading.Event()

    def work() -> None:
        try:
            while (image := next(indices)) < total and not stop.is_set():
                _survey_image(survey, image, max_pixels)
        except BaseException:
            stop.set()
            raise

    on_progress(0, total)
    num_threads = (os.cpu_count() or 1) + 1  # one more, because some wait for the disk
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            workers = [threads.submit(work) for _ in range(num_threads)]
            while wait(workers, timeout=0.2).not_done:
                on_progress(int(np.count_nonzero(survey["orientation"])), total)
        finally:
            stop.set()  # Ctrl-C: each thread ends after its current image
    for worker in workers:
        worker.result()  # raises if a thread failed because of a bug
    on_progress(total, total)
    return survey


def _survey_image(survey: Survey, image: int, max_pixels: int) -> None:
    row = survey.columns[image]
    row["orientation"] = 1
    try:
        data = survey.read(image)
    except StorageError:
        raise
    except OSError as error:
        row["state"] = State.MISSING if isinstance(error, FileNotFoundError) else State.INACCESSIBLE
        survey.reasons[image] = why_not_read(error, if_missing="does not exist")
        return
    crop = survey.crop(image)
    digest = hashlib.blake2b(data, digest_size=8)
    if crop is not None:
        digest.update(repr(crop).encode())
    row["num_bytes"] = len(data)
    row["digest"] = int.from_bytes(digest.digest())
    facts, pixels = _facts_and_pixels(data, max_pixels, min_side=0 if crop is not None else _MIN_SIDE)
    row["format"] = FORMATS.index(facts.format) if facts.format else len(FORMATS)
    row["width"], row["height"], row["bits"] = facts.width, facts.height, facts.bits
    row["orientation"], row["is_animated"] = facts.exif_orientation, facts.is_animated
    row["is_cmyk"] = facts.mode == "CMYK"
    if pixels is None:
        row["state"] = _state_of(facts, data)
        survey.reasons[image] = facts.problem
        return
    if crop is not None:
        top, left, height, width = crop
        is_inside = top >= 0 and left >= 0 and top + height <= facts.height and left + width <= facts.width
        row["is_crop_outside"] = not is_inside
        pixels = pixels[top : top + height, left : left + width] if is_inside else pixels
    hash = perceptual_hash(pixels)
    # Small details may have been averaged away when the image was decoded at a reduced size.
    if hash.is_blank and pixels.shape[:2] != (facts.height, facts.width):
        _, full_size = _facts_and_pixels(data, max_pixels, min_side=0)
        hash = hash if full_size is None else perceptual_hash(full_size)
    row["difference_hash"], row["colors"], row["is_blank"] = hash.bits, hash.colors, hash.is_blank


def _facts_and_pixels(data: bytes, max_pixels: int, *, min_side: int) -> tuple[ImageFacts, np.ndarray | None]:
    """Facts and pixels from a single decoding; `image_facts` alone would need a second one for the pixels."""
    pixels: list[np.ndarray] = []

    def decode(image: Image.Image) -> None:
        pixels.append(pixels_of(image, _WHITE, False, max_pixels, min_side=min_side))

    facts = image_facts(data, max_pixels, decode=decode)
    return facts, None if facts.problem else pixels[-1]


def _state_of(facts: ImageFacts, data: bytes) -> State:
    if not data:
        return State.EMPTY
    if facts.is_bomb:
        return State.BOMB
    return State.TRUNCATED if facts.is_truncated else State.DAMAGED
