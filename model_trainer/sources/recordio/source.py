"""RecordIO files and `.lst` files as data sources."""

from __future__ import annotations

import os
from typing import final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Images
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.number_rows import NumberRows
from model_trainer.sources.labels.numbers import NumbersAs
from model_trainer.sources.path_text import PathText
from model_trainer.sources.recordio.class_names import load_class_names
from model_trainer.sources.recordio.headers import read_headers
from model_trainer.sources.recordio.image_list import num_labels_of_first_line, read_image_list
from model_trainer.sources.recordio.images import RecordImages
from model_trainer.sources.recordio.index import find_records
from model_trainer.sources.recordio.labels import make_labels
from model_trainer.sources.recordio.stored import index_object
from model_trainer.sources.source import Source
from model_trainer.storage import cached, files
from model_trainer.storage.files import as_path
from model_trainer.storage.mapped import map_file

__all__ = ["MxnetList", "RecordIO"]


@final
class RecordIO(Source):
    """Images in a RecordIO file, packed by MXNet's im2rec or `mx.recordio`.

    Images are read in any order, from a local file through a memory map, so a file may be larger than the memory. A
    file in an object store is read once from start to end for its index, which is then cached. Memory: 24 bytes for
    each image with one label, and at most 120 while the file is read; with several labels 32, and 8 for each nonzero
    label.

    The labels of a record have one of these meanings:
        "single": its one number is its class.
        "multi_hot": one number per class: 1 for present, 0 for absent, -1 for unknown; fractions are soft labels.
        "indices": each number is one of its classes, -1 is none.
        "auto": inferred from the numbers of all records; a line in the log gives the result.

    Fields:
        path: the `.rec` file: local, or in s3://, gs:// or az://.
        labels: the meaning of the labels.
        classes: names of the classes in the order of their numbers; None means the lines of `train.classes.txt` next to
            `train.rec`, and without it "0" to "n-1".
        index: the `.idx` file; None means `train.idx`, if there is one. Without a valid index the file is scanned once,
            record by record. Not used for a file in an object store.
        list: a `.lst` file whose labels replace those in the records; lines are matched by the records' ids.

    Example:
        >>> write_recordio(ImageFolder("data/train").read(), "train.rec")  # returns the images that cannot be read
        {}
        >>> examples = RecordIO("train.rec").read()
        >>> len(examples), examples.classes
        (16, ('cat', 'dog'))
    """

    path: PathText
    labels: NumbersAs = "auto"
    classes: tuple[str, ...] | None = None
    index: PathText | None = None
    list: PathText | None = None

    def read(self) -> Examples:
        if self.path.lower().endswith(".lst"):
            raise DataError(f"{self.path} is a list, not the records. Declare MxnetList({self.path!r}) to read it.")
        images: Images
        if cached.is_in_store(self.path):
            images, headers = index_object(self.path)
        else:
            offsets = find_records(self.path, self.index)
            headers = read_headers(self.path, map_file(self.path), offsets)
            images = RecordImages(self.path, offsets)
        rows, numbers = headers.rows, headers.labels
        if self.list is not None:
            numbers = read_image_list(self.list).labels_of(headers.ids, self.list, self.path, rows)
        elif self.labels in ("auto", "single"):
            _warn_of_dropped_labels(self.path, numbers)
        labels, classes = make_labels(
            numbers,
            self.labels,
            self.classes or load_class_names(self.path),
            LabelLocation(self.path, lambda row: images.name(int(rows[row]))),
        )
        return Examples(
            images=images,
            rows=rows,
            labels=labels,
            weights=np.ones(len(rows), np.float32),
            classes=classes,
            origin=self.path,
        )


def _warn_of_dropped_labels(path: str, numbers: NumberRows) -> None:
    """Warns if the list next to a file has more labels than its records."""
    list_path = str(as_path(path).with_suffix(".lst"))
    if np.all(numbers.widths == 1) and num_labels_of_first_line(list_path) > 1:
        logging.warning(
            "%s: each record contains one label, but %s has several in a line: im2rec keeps only the first unless it "
            "is run with --pack-label. Pack the file again with it, or pass list=%r.",
            path,
            list_path,
            list_path,
        )


@final
class MxnetList(Source):
    """The image files in an MXNet list, the input of im2rec.

    Each line has a number, one or more labels, and a path relative to `root`, separated by tabs.

    Fields:
        path: the `.lst` file.
        root: the base folder of the paths; None means the folder of the list.
        labels: the meaning of the labels, as in `RecordIO`.
        classes: names of the classes, as in `RecordIO`.

    Example:
        >>> from pathlib import Path
        >>> size = Path("train.lst").write_text("0\\t0\\tcat/0.jpg\\n1\\t1\\tdog/0.jpg\\n")
        >>> MxnetList("train.lst", root="data/train", classes=("cat", "dog")).read().names()
        ['data/train/cat/0.jpg', 'data/train/dog/0.jpg']
    """

    path: PathText
    root: PathText | None = None
    labels: NumbersAs = "auto"
    classes: tuple[str, ...] | None = None

    def read(self) -> Examples:
        listed = read_image_list(self.path)
        root = os.path.dirname(self.path) if self.root is None else self.root
        if self.root is not None and not files.is_folder(self.root):
            raise DataError(f"There is no folder {self.root}. `root` is the base folder of the paths in the list.")
        labels, classes = make_labels(
            listed.labels,
            self.labels,
            self.classes or load_class_names(self.path),
            LabelLocation(self.path, lambda row: f"{self.path} ({listed.paths[row]})"),
        )
        paths = (os.path.join(root, path) for path in listed.paths)
        return Examples.of_files(paths, labels, classes, origin=self.path)
