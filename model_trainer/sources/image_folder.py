"""Images in folders: one folder for each class, searched all the way down."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.messages import counted, nearest, shown
from model_trainer.sources.examples import Examples
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source
from model_trainer.storage import files

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "Listing",
    "folders_in",
    "hidden_in",
    "images_beside",
    "list_images",
    "suffixes_of",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")

# How files of these formats begin, for names that do not tell.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")
_TIFF = (b"II*\0", b"MM\0*")  # of names without a suffix only: cameras' raw files, such as .nef and .dng, begin so, too

HOW_TO_ARRANGE = "Put images into one folder for each class, such as {path}/cat/1.jpg and {path}/dog/1.jpg."


@final
class ImageFolder(Source):
    """`path/CLASS/.../image.jpg`: the first folder below `path` names the class.

    Left out, and counted in one line of the log, are files that are no image by name nor by their first bytes, files
    and folders whose name begins with a dot, and images beside the folders of the classes.

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
        hidden = hidden_in(self.path)
        for label, name in enumerate(classes):
            if name not in folders:
                raise DataError(f"{self.path} has no folder for the class {name!r}.{nearest(name, folders)}")
            images, not_images, not_looked_at = list_images(folders[name])
            if not images:
                raise DataError(
                    f"{folders[name]} holds no image. Put images of the class {name!r} there, or remove the folder."
                )
            paths += images
            labels += [label] * len(images)
            others += not_images
            hidden += not_looked_at
        _say_what_is_skipped(self.path, others, hidden)
        return Examples.of_files(paths, np.asarray(labels, np.int32), classes, origin=self.path)

    def _class_folders(self) -> dict[str, str]:
        how = HOW_TO_ARRANGE.format(path=self.path)
        root = Path(self.path)
        if "://" in self.path:
            raise DataError(
                f"{self.path} is an object store; folders are read from disks only, so far. Copy it to one."
            )
        if not files.exists(root):
            raise DataError(f"There is no folder {self.path}. {how}")
        if not files.is_folder(root):
            raise DataError(f"{self.path} is a file; ImageFolder needs a folder. {how}")
        folders = folders_in(root)
        if not folders:
            raise DataError(f"{self.path} holds no folder of a class. {how}")
        return folders


class Listing(NamedTuple):
    """The files below a folder, each list sorted by path.

    Attributes:
        images: by their name or their first bytes.
        others: files that are neither.
        hidden: files and folders whose name begins with a dot; what is in such a folder is not listed.
    """

    images: list[str]
    others: list[str]
    hidden: list[str]


def list_images(folder: str) -> Listing:
    """What is below `folder`, all the way down.

    Links to folders are followed, but for those that lead back to where they are.
    """
    images: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [(folder, (files.real_path(folder),))]
    while waiting:
        inner, links = waiting.pop()
        try:
            entries = sorted(files.scan(inner), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if entry.name.startswith("."):
                hidden.append(entry.path)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):  # first: no look at the disk for the usual file
                images.append(entry.path)
            elif entry.is_symlink() and files.is_folder(entry.path):
                if not is_cycle(entry.path, (*links, files.real_path(inner))):
                    waiting.append((entry.path, (*links, files.real_path(entry.path))))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, links))
            elif _has_image_signature(entry.path):
                images.append(entry.path)
            else:
                others.append(entry.path)
    return Listing(sorted(images), sorted(others), sorted(hidden))


def images_beside(root: str | Path) -> list[str]:
    """The images in `root` itself, beside the folders of the classes."""
    named = [each for each in files.scan(root) if each.name.lower().endswith(IMAGE_SUFFIXES) and each.name[0] != "."]
    return sorted(entry.path for entry in named if not entry.is_dir())


def suffixes_of(paths: Sequence[str]) -> str:
    """The most frequent suffixes with their counts: ".txt 10, .db 2"."""
    counts = Counter(Path(path).suffix.lower() or "no suffix" for path in paths)
    return ", ".join(f"{shown(suffix)} {count:,}" for suffix, count in counts.most_common(5))


def hidden_in(root: str | Path) -> list[str]:
    """The hidden files and folders in `root` itself."""
    return sorted(entry.path for entry in files.scan(root) if entry.name.startswith("."))


def _say_what_is_skipped(root: str, others: Sequence[str], hidden: Sequence[str]) -> None:
    skipped = [
        (others, f"file{{s}} of other types ({suffixes_of(others)})"),
        (hidden, "hidden file{s} or folder{s}"),
        (images_beside(root), "image{s} beside the folders of the classes"),
    ]
    said = [f"{counted(len(paths), words)}, such as {shown(paths[0])}" for paths, words in skipped if paths]
    if said:
        logging.warning("Skipped in %s: %s.", root, "; ".join(said))


def is_cycle(link: str, folders: Iterable[str]) -> bool:
    """Whether a link leads to one of `folders`, or to one that it is in; says so in the log.

    Args:
        folders: real paths, of where the link is and of what was followed to get there.
    """
    target = files.real_path(link)
    if not any(os.path.join(folder, "").startswith(os.path.join(target, "")) for folder in folders):
        return False
    logging.warning("%s is a link to a folder that it is in; it is not followed.", link)
    return True


def folders_in(root: str | Path) -> dict[str, str]:
    """By name the paths of the folders in `root`, without hidden ones and links that lead back.

    Raises:
        OSError: it cannot be read.
    """
    found = {}
    for entry in files.scan(root):
        # Not entry.is_dir, which fails for a link to itself.
        if entry.name.startswith(".") or not files.is_folder(entry.path):
            continue
        if not (entry.is_symlink() and is_cycle(entry.path, (files.real_path(root),))):
            found[entry.name] = entry.path
    return found


def _has_image_signature(path: str) -> bool:
    try:
        with files.open_file(path) as file:
            head = file.read(12)
    except OSError:
        return False
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:] in (b"avif", b"avis"))
        or (head.startswith(_TIFF) and not os.path.splitext(path)[1])
    )
