"""RecordIO files and their lists as sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
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
from model_trainer.sources.source import Source
from model_trainer.storage import files
from model_trainer.storage.mapped import map_file

__all__ = ["MxnetList", "RecordIO"]


@final
class RecordIO(Source):
    """The images of a file that MXNet's im2rec or `mx.recordio` packed: `RecordIO("train.rec")`.

    Images are read through a memory map, any of them at any time, so a file may be larger than the memory.
    Memory: 24 bytes for each image with one label stay, and at most 120 are needed while the file is read; with
    several labels 32 and 8 for each that is not 0.

    The labels of a record mean one of these:
        "single": its one number is its class.
        "multi_hot": a number for each class: 1 has it, 0 has it not, -1 nobody knows; between them is a soft label.
        "indices": each number is a class that it has, -1 is none.
        "auto": told from the numbers of all records; a line in the log says what was found.

    Fields:
        path: the `.rec` file, on a local disk.
        labels: what the labels mean.
        classes: names of the classes in the order of their numbers; None takes the lines of `train.classes.txt`
            beside `train.rec`, and without it "0" to "n-1".
        index: the `.idx` file; None takes `train.idx` where there is one. Without it, or where it does not fit,
            the file is walked through once, record by record.
        list: the `.lst` file, whose labels count instead of those in the records; lines are found by the
            records' ids.
    """

    path: PathText
    labels: NumbersAs = "auto"
    classes: tuple[str, ...] | None = None
    index: PathText | None = None
    list: PathText | None = None

    def read(self) -> Examples:
        if self.path.lower().endswith(".lst"):
            raise DataError(f"{self.path} is a list, not the records. Declare MxnetList({self.path!r}) to read it.")
        offsets = find_records(self.path, self.index)
        headers = read_headers(self.path, map_file(self.path), offsets)
        rows, numbers = headers.rows, headers.labels
        if self.list is not None:
            numbers = read_image_list(self.list).labels_of(headers.ids, self.list, self.path, rows)
        elif self.labels in ("auto", "single"):
            _warn_of_dropped_labels(self.path, numbers)
        images = RecordImages(self.path, offsets)
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
    """Says so where the list beside a file has more labels than its records."""
    beside = str(Path(path).with_suffix(".lst"))
    if np.all(numbers.widths == 1) and num_labels_of_first_line(beside) > 1:
        logging.warning(
            "%s: each record carries one label, but %s has several in a line: im2rec keeps only the first unless it "
            "is run with --pack-label. Pack the file again with it, or say list=%r.",
            path,
            beside,
            beside,
        )


@final
class MxnetList(Source):
    """The image files that an MXNet list names: `MxnetList("train.lst", root="images")`.

    Each line has a number, one label or several, and a path below `root`, with tabs between them. It is what
    im2rec makes a `.rec` of; here the images stay files.

    Fields:
        path: the `.lst` file.
        root: the folder below which the paths are; None means the folder of the list.
        labels: what the labels mean, as in `RecordIO`.
        classes: names of the classes, as in `RecordIO`.
    """

    path: PathText
    root: PathText | None = None
    labels: NumbersAs = "auto"
    classes: tuple[str, ...] | None = None

    def read(self) -> Examples:
        listed = read_image_list(self.path)
        root = os.path.dirname(self.path) if self.root is None else self.root
        if self.root is not None and not files.is_folder(self.root):
            raise DataError(f"There is no folder {self.root}. `root` is the folder below which the listed paths are.")
        labels, classes = make_labels(
            listed.labels,
            self.labels,
            self.classes or load_class_names(self.path),
            LabelLocation(self.path, lambda row: f"{self.path} ({listed.paths[row]})"),
        )
        paths = (os.path.join(root, path) for path in listed.paths)
        return Examples.of_files(paths, labels, classes, origin=self.path)
