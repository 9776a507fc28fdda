"""Image folders as a data source: one folder for each class, searched recursively."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from absl import logging

from model_trainer.errors import DataError, StorageError
from model_trainer.messages import counted, nearest, shown
from model_trainer.sources.examples import Examples
from model_trainer.sources.image_signature import HEAD_BYTES, IMAGE_SUFFIXES, is_image_head
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source
from model_trainer.sources.store_folder import list_class_folders
from model_trainer.storage import cached, files

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "Listing",
    "folders_in",
    "hidden_in",
    "list_images",
    "suffixes_of",
    "unclassified_images",
]

HOW_TO_ARRANGE = "Put images into one folder for each class, such as {path}/cat/1.jpg and {path}/dog/1.jpg."


@final
class ImageFolder(Source):
    """Images in one folder per class, `path/CLASS/.../image.jpg`: the first folder below `path` is the class.

    Files that are not images by their name or their first bytes, files and folders whose names start with a dot, and
    images outside the class folders are skipped; one line of the log counts them.

    Fields:
        path: the folder.
        classes: names of the classes in the order of the model's outputs; None means the names of the folders, sorted.

    Example:
        >>> examples = ImageFolder("data/train").read()
        >>> examples.classes, examples.counts()
        (('cat', 'dog'), array([8, 8]))
        >>> train_data, val_data = ImageFolder("data/train").split(val=0.25)
    """

    path: PathText
    classes: tuple[str, ...] | None = None

    def read(self) -> Examples:
        if cached.is_in_store(self.path):
            return self._read_store()
        folders = self._class_folders()
        classes = self._checked_classes(folders)
        paths: list[str] = []
        labels: list[int] = []
        not_images: list[str] = []
        hidden = hidden_in(self.path)
        for label, name in enumerate(classes):
            listing = list_images(folders[name])
            if not listing.images:
                raise DataError(_no_images(folders[name], name))
            paths += listing.images
            labels += [label] * len(listing.images)
            not_images += listing.others
            hidden += listing.hidden
        _log_skipped(self.path, not_images, hidden, unclassified_images(self.path))
        return Examples.of_files(paths, np.asarray(labels, np.int32), classes, origin=self.path)

    def _read_store(self) -> Examples:
        folder = list_class_folders(self.path)
        if not folder.classes:
            if not len(folder.images):
                files.info(self.path)  # raises if something is wrong with the bucket
                raise DataError(f"There is no folder {self.path}. {HOW_TO_ARRANGE.format(path=self.path)}")
            raise DataError(f"{self.path} contains no class folders. {HOW_TO_ARRANGE.format(path=self.path)}")
        classes = self._checked_classes(folder.classes)
        for name in classes:
            if not len(folder.classes[name]):
                raise DataError(_no_images(f"{self.path.rstrip('/')}/{name}", name))
        _log_skipped(self.path, *map(folder.names, (folder.others, folder.hidden, folder.beside)))
        rows = [folder.classes[name] for name in classes]
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(each) for each in rows])
        return Examples(
            images=folder.images,
            rows=np.concatenate(rows),
            labels=labels,
            weights=np.ones(len(labels), np.float32),
            classes=classes,
            origin=self.path,
        )

    def _checked_classes(self, folders: Mapping[str, object]) -> tuple[str, ...]:
        classes = self.classes or tuple(sorted(folders))
        for name in folders:
            if name not in classes:
                raise DataError(
                    f"{self.path} has the folder {name!r}, which is not in the class list.{nearest(name, classes)}"
                )
        for name in classes:
            if name not in folders:
                raise DataError(f"{self.path} has no folder for the class {name!r}.{nearest(name, folders)}")
        return classes

    def _class_folders(self) -> dict[str, str]:
        cure = HOW_TO_ARRANGE.format(path=self.path)
        root = Path(self.path)
        if "://" in self.path:
            raise DataError(f"{self.path}: ImageFolder reads local folders and s3://, gs:// and az:// only.")
        if not files.exists(root):
            raise DataError(f"There is no folder {self.path}. {cure}")
        if not files.is_folder(root):
            raise DataError(f"{self.path} is a file; ImageFolder needs a folder. {cure}")
        folders = folders_in(root)
        if not folders:
            raise DataError(f"{self.path} contains no class folders. {cure}")
        return folders


class Listing(NamedTuple):
    """The files below a folder, each list sorted by path.

    Attributes:
        images: images by their name or their first bytes.
        others: other files.
        hidden: files and folders whose name starts with a dot; the contents of such folders are not listed.
    """

    images: list[str]
    others: list[str]
    hidden: list[str]


def list_images(folder: str) -> Listing:
    """Lists the files below `folder`, recursively.

    Links to folders are followed, except those that form a cycle.

    Raises:
        DataError: a folder cannot be read.
    """
    images: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    pending: list[tuple[str, tuple[str, ...]]] = [(folder, (files.real_path(folder),))]
    while pending:
        inner, links = pending.pop()
        try:
            entries = sorted(files.scan(inner), key=lambda entry: entry.name)
        except StorageError:
            raise
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if entry.name.startswith("."):
                hidden.append(entry.path)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):  # first, because it needs no access to the disk
                images.append(entry.path)
            elif entry.is_symlink() and files.is_folder(entry.path):
                if not warn_if_cycle(entry.path, (*links, files.real_path(inner))):
                    pending.append((entry.path, (*links, files.real_path(entry.path))))
            elif entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, links))
            elif _has_image_signature(entry.path):
                images.append(entry.path)
            else:
                others.append(entry.path)
    return Listing(sorted(images), sorted(others), sorted(hidden))


def unclassified_images(root: str | Path) -> list[str]:
    """The images in `root` itself, outside the class folders."""
    named = [each for each in files.scan(root) if each.name.lower().endswith(IMAGE_SUFFIXES) and each.name[0] != "."]
    return sorted(entry.path for entry in named if not entry.is_dir())


def suffixes_of(paths: Sequence[str]) -> str:
    """The most frequent suffixes with their counts: ".txt 10, .db 2"."""
    counts = Counter(Path(path).suffix.lower() or "no suffix" for path in paths)
    return ", ".join(f"{shown(suffix)} {count:,}" for suffix, count in counts.most_common(5))


def hidden_in(root: str | Path) -> list[str]:
    """The hidden files and folders in `root` itself."""
    return sorted(entry.path for entry in files.scan(root) if entry.name.startswith("."))


def _no_images(folder: str, name: str) -> str:
    return f"{folder} contains no images. Put images of the class {name!r} there, or remove the folder."


def _log_skipped(root: str, not_images: Sequence[str], hidden: Sequence[str], beside: Sequence[str]) -> None:
    skipped = [
        (not_images, f"file{{s}} of other types ({suffixes_of(not_images)})"),
        (hidden, "hidden file{s} or folder{s}"),
        (beside, "image{s} outside the class folders"),
    ]
    counts = [f"{counted(len(paths), words)}, such as {shown(paths[0])}" for paths, words in skipped if paths]
    if counts:
        logging.warning("Skipped in %s: %s.", root, "; ".join(counts))


def warn_if_cycle(link: str, folders: Iterable[str]) -> bool:
    """Whether a link points to one of `folders` or to a parent of one; logs a warning if so.

    Args:
        link: path of the link.
        folders: real paths of the folder of the link, and of the links that were followed to get there.
    """
    target = files.real_path(link)
    if not any(os.path.join(folder, "").startswith(os.path.join(target, "")) for folder in folders):
        return False
    logging.warning("%s is a link to a folder that contains it; it is not followed.", link)
    return True


def folders_in(root: str | Path) -> dict[str, str]:
    """The folders in `root`, without hidden ones and links that form a cycle.

    Returns:
        Their paths by name.

    Raises:
        OSError: `root` cannot be read.
    """
    folders = {}
    for entry in files.scan(root):
        # Not entry.is_dir, which raises for a link to itself.
        if entry.name.startswith(".") or not files.is_folder(entry.path):
            continue
        if not (entry.is_symlink() and warn_if_cycle(entry.path, (files.real_path(root),))):
            folders[entry.name] = entry.path
    return folders


def _has_image_signature(path: str) -> bool:
    try:
        with files.open_file(path) as file:
            return is_image_head(file.read(HEAD_BYTES), path)
    except StorageError:
        raise
    except OSError:
        return False
