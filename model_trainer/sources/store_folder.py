"""Class folders in an object store: one listing of all keys, sorted into images, other files and hidden ones."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from model_trainer.errors import StorageError
from model_trainer.sources.image_signature import HEAD_BYTES, IMAGE_SUFFIXES, is_image_head
from model_trainer.sources.objects import Objects
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import cached, files

__all__ = ["StoreFolder", "list_class_folders"]

_READERS = 32
_BLOCK = 100_000  # keys processed together, which limits the memory

_SUFFIXES = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True, eq=False)
class StoreFolder:
    """The objects below a folder; all rows are indices in `images`.

    Attributes:
        images: all objects, including those that are not images.
        classes: int64, the rows of the images in each folder, by its name.
        others: the rows of other files in the folders.
        hidden: the rows of objects with a name in their path, below the folder, that starts with a dot.
        beside: the rows of images outside the class folders.
    """

    images: Objects
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    others: Sequence[int] = ()
    hidden: Sequence[int] = ()
    beside: Sequence[int] = ()

    def names(self, rows: Sequence[int]) -> Sequence[str]:
        """The names of the images in `rows`; each is created when it is accessed."""
        return _Names(self.images, rows)


def list_class_folders(path: str) -> StoreFolder:
    """Lists a folder of an object store, which has one folder for each class.

    Raises:
        StorageError: the store cannot be listed.
    """
    listing = cached.listing_of(path)
    images = Objects(PackedStrings(listing.keys, listing.starts), f"{listing.url.root}/", listing.sizes, listing.etags)
    prefix = len(f"{listing.url.key}/".encode()) if listing.url.key else 0
    classes: dict[bytes, array[int]] = {}
    others, hidden, beside, unsure = array("q"), array("q"), array("q"), array("q")
    for row, key in _keys(images.paths):
        names = key[prefix:].split(b"/")
        is_image = names[-1].lower().endswith(_SUFFIXES)
        if any(name.startswith(b".") for name in names):
            if len(names) > 1 and not names[0].startswith(b"."):
                classes.setdefault(names[0], array("q"))
            hidden.append(row)
        elif len(names) == 1:
            if is_image:
                beside.append(row)
        elif is_image:
            classes.setdefault(names[0], array("q")).append(row)
        else:
            classes.setdefault(names[0], array("q"))
            # The console of S3 marks a folder by an empty object, whose name ends with a slash.
            if b"." in names[-1] or listing.sizes[row]:
                unsure.append(row)
    for row, is_image in zip(unsure, _images_among(images, unsure), strict=True):
        if is_image:
            classes[images.paths.encoded(row)[prefix:].partition(b"/")[0]].append(row)
        else:
            others.append(row)
    by_name = {os.fsdecode(name): np.array(rows, np.int64) for name, rows in classes.items()}
    by_name = {name: np.sort(rows) for name, rows in by_name.items()}
    return StoreFolder(images, by_name, others, hidden, beside)


def _keys(paths: PackedStrings) -> Iterator[tuple[int, bytes]]:
    for first in range(0, len(paths), _BLOCK):
        starts = paths.starts[first : first + _BLOCK + 1].tolist()
        block = paths.data[starts[0] : starts[-1]]
        for row, (start, end) in enumerate(itertools.pairwise(starts), first):
            yield row, block[start - starts[0] : end - starts[0]]


def _images_among(images: Objects, rows: Sequence[int]) -> Iterator[bool]:
    """Whether each object is an image by its first bytes."""
    sizes = images.num_bytes(np.asarray(rows, np.int64)).tolist()

    def is_image(row: int, size: int) -> bool:
        if size < HEAD_BYTES:
            return False
        try:
            return is_image_head(files.read_range(images.name(row), 0, HEAD_BYTES), images.name(row))
        except StorageError:
            raise
        except OSError:
            return False

    with ThreadPoolExecutor(_READERS) as threads:
        for first in range(0, len(rows), _BLOCK):
            block = slice(first, first + _BLOCK)
            yield from threads.map(is_image, rows[block], sizes[block])


class _Names(Sequence[str]):
    def __init__(self, images: Objects, rows: Sequence[int]) -> None:
        self._images = images
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Names(self._images, self._rows[index])
        return self._images.name(self._rows[index])
