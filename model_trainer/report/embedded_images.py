"""Pictures of an output folder for a page, as long as it stays small."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import PurePath

from model_trainer.report.evaluation_file import Gallery, GalleryImage
from model_trainer.report.run_files import AugmentedExample, RunFiles
from model_trainer.storage import files
from model_trainer.storage.read import read_limited

__all__ = ["Pictures", "ShownExample", "ShownGallery", "ShownImage"]

# What evaluation and training write; a damaged or untrusted file could name any other file of the machine.
SAFE_NAME = re.compile(r"(?:images|examples)/[\w-]+(?:\.[\w-]+)*\.jpe?g", re.ASCII)
JPEG_START = b"\xff\xd8\xff"
MAX_BYTES = 300_000  # of one picture
TAG_BYTES = 900  # of the elements around a picture


@dataclass(frozen=True)
class ShownImage:
    """An image of a gallery with its JPEG bytes; `picture` and `attribution` are None if there is not a file."""

    image: GalleryImage
    picture: bytes | None
    attribution: bytes | None

    @property
    def caption(self) -> str:
        """The caption without the predicted label and its probability, which stand above it."""
        image = self.image
        if image.probability is None or len(image.predicted) != 1:
            return image.caption
        above = f"{image.predicted[0]} {image.probability:.2f}"
        return "" if image.caption == above else image.caption.removeprefix(f"{above}, is ")


@dataclass(frozen=True)
class ShownGallery:
    """The images of a gallery that fit the page.

    Attributes:
        gallery: the gallery as evaluated.
        images: the first of its images.
        num_more: how many were left out.
    """

    gallery: Gallery
    images: tuple[ShownImage, ...]
    num_more: int


@dataclass(frozen=True)
class ShownExample:
    """A training image, and augmented ones with their labels."""

    example: AugmentedExample
    original: bytes | None
    augmented: tuple[tuple[bytes, str], ...]


@dataclass
class Pictures:
    """Reads pictures until they would take more than `max_bytes` in the page.

    Args:
        run: the output folder.
        max_bytes: of all pictures together, as text in the page.
    """

    run: RunFiles
    max_bytes: int
    num_bytes: int = field(default=0, init=False)
    is_full: bool = field(default=False, init=False)

    def examples(self) -> list[ShownExample]:
        """The augmented examples of the training data."""
        shown = []
        for example in self.run.data.examples if self.run.data is not None else ():
            folder = self.run.path / "report"
            original = self._read(folder, example.original)
            labels = [*example.labels, *[""] * len(example.augmented)]
            read = [(self._read(folder, name), label) for name, label in zip(example.augmented, labels, strict=False)]
            augmented = tuple((data, label) for data, label in read if data is not None)
            if original is None and not augmented:
                continue
            if not self._fits(original, *(data for data, _ in augmented)):
                break
            shown.append(ShownExample(example, original, augmented))
        return shown

    def galleries(self) -> list[ShownGallery]:
        """The galleries of the evaluation; once the page is full, all further images are left out."""
        evaluation = self.run.evaluation
        return [self._gallery(each) for each in (evaluation.galleries if evaluation is not None else ())]

    def _gallery(self, gallery: Gallery) -> ShownGallery:
        folder = self.run.path / "evaluation"
        images: list[ShownImage] = []
        for image in gallery.images:
            if self.is_full:
                break
            picture, attribution = self._read(folder, image.file), self._read(folder, image.map)
            if self._fits(picture, attribution):
                images.append(ShownImage(image, picture, attribution))
        return ShownGallery(gallery, tuple(images), len(gallery.images) - len(images))

    def _read(self, folder: PurePath, name: str | None) -> bytes | None:
        if name is None or self.is_full or not SAFE_NAME.fullmatch(name):
            return None
        with contextlib.suppress(OSError):
            # A link could lead to any other picture of the machine, which the reader of the page is not meant to see.
            inside = f"{files.real_path(self.run.path).rstrip('/')}{os.sep}"
            if "://" in str(folder) or files.real_path(folder / name).startswith(inside):
                data = read_limited(folder / name, MAX_BYTES)
                return data if data.startswith(JPEG_START) else None
        return None

    def _fits(self, *pictures: bytes | None) -> bool:
        """Whether the pictures still fit the page; counts their bytes if they do."""
        size = TAG_BYTES + sum(len(each) * 4 // 3 + 40 for each in pictures if each is not None)
        self.is_full = self.is_full or self.num_bytes + size > self.max_bytes
        self.num_bytes += 0 if self.is_full else size
        return not self.is_full
