"""Reads every image of a data set once, in parallel, and keeps about 90 bytes of each."""

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

from model_trainer.diagnosis.data.perceptual_hash import NUM_COLOURS, perceptual_hash
from model_trainer.diagnosis.data.splits import DataSplit
from model_trainer.images.facts import ImageFacts, image_facts
from model_trainer.images.pillow import FORMATS, pixels_of
from model_trainer.storage.read import why_not_read

__all__ = ["State", "Survey", "survey_images"]

_COLUMNS = np.dtype(
    [
        ("state", np.uint8),
        ("num_bytes", np.int64),
        ("digest", np.uint64),  # of bytes and crop; 50 million images share one by chance once in 10,000 data sets
        ("format", np.uint8),  # position in FORMATS; their number for anything else
        ("width", np.int32),  # of the upright image
        ("height", np.int32),
        ("bits", np.uint8),
        ("orientation", np.uint8),
        ("is_cmyk", np.bool_),
        ("is_animated", np.bool_),
        ("is_outside", np.bool_),  # the crop, of the image
        ("is_blank", np.bool_),
        ("look", np.uint64),
        ("colours", np.uint8, (NUM_COLOURS,)),
    ]
)
_WHITE = (255, 255, 255)
_MIN_SIDE = 96  # pixels: a look is made of 9 x 8 places


class State(IntEnum):
    """Whether an image can be read, and what hinders."""

    FINE = 0
    MISSING = 1
    CLOSED = 2  # the file is there and cannot be opened
    EMPTY = 3
    TRUNCATED = 4
    BOMB = 5
    DAMAGED = 6


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of all images of all parts; images are counted through the parts, from 0.

    Attributes:
        parts: of the data set.
        columns: one row for each image, see `_COLUMNS`.
        reasons: why an image cannot be read, by its number.
    """

    parts: tuple[DataSplit, ...]
    columns: np.ndarray
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    @property
    def part_of(self) -> np.ndarray:
        """int64 `(num_images,)`: the position in `parts` of each image's part."""
        return np.repeat(np.arange(len(self.parts)), [len(part.examples) for part in self.parts])

    def find(self, image: int) -> tuple[DataSplit, int]:
        """The part that an image is in, and which of its examples it is."""
        for part in self.parts:
            if image < len(part.examples):
                return part, image
            image -= len(part.examples)
        raise IndexError(image)

    def name(self, image: int) -> str:
        """What messages call it: a path, or "train.rec#7"."""
        part, index = self.find(image)
        return part.examples.name(index)

    def read(self, image: int) -> bytes:
        """The encoded image; raises OSError."""
        part, index = self.find(image)
        return part.examples.images.read(int(part.examples.rows[index]))

    def crop(self, image: int) -> tuple[int, int, int, int] | None:
        """Top, left, height and width of the part of the upright image that counts; None for all of it."""
        part, index = self.find(image)
        if part.examples.crops is None or part.examples.crops[index][2] == 0:
            return None
        top, left, height, width = (int(edge) for edge in part.examples.crops[index])
        return top, left, height, width

    def label(self, image: int) -> str:
        """The name of its class, or its tags with commas between; empty without any."""
        part, index = self.find(image)
        labels = part.examples.labels
        if isinstance(labels, np.ndarray):
            return part.examples.classes[labels[index]]
        row = slice(int(labels.starts[index]), int(labels.starts[index + 1]))
        if labels.exclusive:
            shares = zip(labels.classes[row], labels.values[row], strict=True)
            return ", ".join(f"{part.examples.classes[each]} {share:.2f}" for each, share in shares)
        return ", ".join(sorted(part.examples.classes[each] for each in labels.classes[row][labels.values[row] >= 0.5]))

    def kept(self, keep: np.ndarray) -> Survey:
        """Only the images where `keep`, bool `(num_images,)`, is True."""
        ends = np.cumsum([len(part.examples) for part in self.parts])[:-1]
        parts = tuple(
            replace(part, examples=part.examples.take(np.flatnonzero(own)))
            for part, own in zip(self.parts, np.split(keep, ends), strict=True)
        )
        number = np.cumsum(keep) - 1
        reasons = {int(number[image]): reason for image, reason in self.reasons.items() if keep[image]}
        return Survey(parts, self.columns[keep], reasons)


def survey_images(
    parts: Sequence[DataSplit], max_pixels: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Survey:
    """Reads and decodes all images; nothing that is in them stops it.

    Args:
        max_pixels: images of more are not decoded.
        on_progress: called with the images done and their number, some times a second.
    """
    total = sum(len(part.examples) for part in parts)
    survey = Survey(tuple(parts), np.zeros(total, _COLUMNS), {})
    survey.columns["format"] = len(FORMATS)
    numbers = itertools.count()  # whose next() no two threads share
    stop = threading.Event()

    def work() -> None:
        try:
            while (image := next(numbers)) < total and not stop.is_set():
                _survey_image(survey, image, max_pixels)
        except BaseException:
            stop.set()
            raise

    on_progress(0, total)
    num_threads = (os.cpu_count() or 1) + 1  # one more, for when a disk is waited for
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            workers = [threads.submit(work) for _ in range(num_threads)]
            while wait(workers, timeout=0.2).not_done:
                on_progress(int(np.count_nonzero(survey["orientation"])), total)
        finally:
            stop.set()  # Ctrl-C: the threads end with the image they are at
    for worker in workers:
        worker.result()  # an error of ours, if there was one
    on_progress(total, total)
    return survey


def _survey_image(survey: Survey, image: int, max_pixels: int) -> None:
    seen = survey.columns[image]
    seen["orientation"] = 1
    try:
        data = survey.read(image)
    except OSError as error:
        seen["state"] = State.MISSING if isinstance(error, FileNotFoundError) else State.CLOSED
        survey.reasons[image] = why_not_read(error, if_missing="is not there")
        return
    crop = survey.crop(image)
    digest = hashlib.blake2b(data, digest_size=8)
    if crop is not None:
        digest.update(repr(crop).encode())
    seen["num_bytes"] = len(data)
    seen["digest"] = int.from_bytes(digest.digest())
    facts, pixels = _facts_and_pixels(data, max_pixels, min_side=0 if crop is not None else _MIN_SIDE)
    seen["format"] = FORMATS.index(facts.format) if facts.format else len(FORMATS)
    seen["width"], seen["height"], seen["bits"] = facts.width, facts.height, facts.bits
    seen["orientation"], seen["is_animated"] = facts.exif_orientation, facts.is_animated
    seen["is_cmyk"] = facts.mode == "CMYK"
    if pixels is None:
        seen["state"] = _state_of(facts, data)
        survey.reasons[image] = facts.problem
        return
    if crop is not None:
        top, left, height, width = crop
        inside = top >= 0 and left >= 0 and top + height <= facts.height and left + width <= facts.width
        seen["is_outside"] = not inside
        pixels = pixels[top : top + height, left : left + width] if inside else pixels
    look = perceptual_hash(pixels)
    if look.is_blank and pixels.shape[:2] != (facts.height, facts.width):  # small things may have been averaged away
        _, whole = _facts_and_pixels(data, max_pixels, min_side=0)
        look = look if whole is None else perceptual_hash(whole)
    seen["look"], seen["colours"], seen["is_blank"] = look.bits, look.colours, look.is_blank


def _facts_and_pixels(data: bytes, max_pixels: int, *, min_side: int) -> tuple[ImageFacts, np.ndarray | None]:
    """With one decoding, where `image_facts` would need another for the pixels."""
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
