"""Images in folders: one folder for each class, searched all the way down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "list_images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

# How files of these formats begin, for names that do not tell.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")

HOW_TO_ARRANGE = "Put images into one folder for each class, such as {path}/cat/1.jpg and {path}/dog/1.jpg."


@final
class ImageFolder(Source):
    """`path/CLASS/.../image.jpg`: the first folder below `path` names the class.

    Files whose name begins with a dot are left out; so are files that are no image by name nor by their first
    bytes, which is said in one line.

    Fields:
        path: the folder.
        classes: names of the classes in the order of the model's outputs; None means the folders' names, sorted.
    """

    path: PathText
    classes: tuple[str, ...] | None = None

    def read(self) -> Examples:
        folders = self._class_folders()
        classes = self.classes or tuple(sorted(folders))
        unknown = [name for name in folders if name not in classes]
        if unknown:
            raise DataError(
                f"{self.path} has the folder {unknown[0]!r}, which is not one of the given classes."
                f"{nearest(unknown[0], classes)}"
            )
        paths: list[str] = []
        labels: list[int] = []
        others: list[str] = []
        for label, name in enumerate(classes):
            if name not in folders:
                raise DataError(f"{self.path} has no folder for the class {name!r}.{nearest(name, folders)}")
            images, not_images = list_images(folders[name])
            if not images:
                raise DataError(
                    f"{folders[name]} holds no image. Put images of the class {name!r} there, or remove the folder."
                )
            paths += images
            labels += [label] * len(images)
            others += not_images
        if others:
            logging.warning("Skipped %d files that are no images, such as %s.", len(others), others[0])
        return Examples.of_files(paths, np.asarray(labels, np.int32), classes, origin=self.path)

    def _class_folders(self) -> dict[str, str]:
        how = HOW_TO_ARRANGE.format(path=self.path)
        root = Path(self.path)
        if not root.exists():
            raise DataError(f"There is no folder {self.path}. {how}")
        if not root.is_dir():
            raise DataError(f"{self.path} is a file; ImageFolder needs a folder. {how}")
        with os.scandir(root) as entries:
            folders = {entry.name: entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
        if not folders:
            raise DataError(f"{self.path} holds no folder of a class. {how}")
        return folders


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """`(images, others)`: the files below `folder`, sorted by path; others are no image by name nor by content."""
    images: list[str] = []
    others: list[str] = []
    waiting = [folder]
    while waiting:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES):  # first: no look at the disk for the usual file
                images.append(entry.path)
            elif entry.is_dir():
                waiting.append(entry.path)
            elif _begins_like_an_image(entry.path):
                images.append(entry.path)
            else:
                others.append(entry.path)
    return sorted(images), sorted(others)


def _begins_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
