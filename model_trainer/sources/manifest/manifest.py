"""The source that reads a manifest: a file with a table of image paths and labels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import final

import numpy as np
from absl import logging
from pydantic import Field, field_validator

from model_trainer.errors import ConfigError, DataError
from model_trainer.messages import counted, nearest
from model_trainer.sources.examples import Examples
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.text_labels import LabelFormat
from model_trainer.sources.manifest.columns import ROLES, find_columns
from model_trainer.sources.manifest.layout import Format, Layout, layout_of
from model_trainer.sources.manifest.row_collector import RowCollector
from model_trainer.sources.manifest.rows import Rows, read_rows
from model_trainer.sources.manifest.table import Table
from model_trainer.sources.objects import images_at
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source

__all__ = ["Manifest"]

SOURCE_OF_SUFFIX = {".rec": "RecordIO", ".lst": "MxnetList", ".tfrecord": "TFRecords", ".tfrecords": "TFRecords"}


@final
class Manifest(Source):
    """Images listed in a table with a row for each: `Manifest("data/train.csv", root="data/images")`.

    The file is Parquet, or UTF-8: CSV (also with ";" or tabs), TSV, JSON Lines (also SageMaker's augmented manifests),
    or JSON: a list of records, such as keras-trainer's `train_data.json`, or a table by columns as pandas writes it.
    JSON is held in memory while it is read; the other formats are read in blocks.

    Columns are recognized by their usual names, in any case, or named by `file_column` etc.:
        file: `filename`, `path`, `file`, `source-ref`, `image`, ...
        label: one per image: `class_name`, `label`, `class`, ...; or class indices: `class_id`.
        labels: any number: `labels`, `tags`; a list, or text such as "red|dress". Empty text and [] mean none.
        probabilities: `class_probabilities`, a number for each class; a row sums to 1, within 0.001.
        unknown: `unknown`, tags that the image may or may not have; loss and metrics ignore them.
        weight: the weight of the image in loss and metrics, at least 0; empty means 1.
        crop: `[x, y, width, height]` in pixels of the upright image; empty or null means the whole image.
        split: a name such as "train", see `split`.
        group: `Manifest(...).split(val=0.1)` never separates images of the same group; empty means a group of its own.
    Labels are read from the first of probabilities, labels and label that exists. The image files are not opened here.

    Fields:
        path: the file.
        root: the folder to which its paths are relative; None means the folder of the file.
        classes: names of the classes in the order of the model's outputs; None means the labels of all rows, sorted;
            for class indices, "0" up to the largest, or the names in SageMaker's metadata.
        labels: how labels are written: "names", "indices" (class indices) or "multi_hot" (lists of 0 and 1, and -1 or
            null for unknown); "auto" infers it from all rows, and logs the result.
        split: reads only the rows with this value in their split column; the classes are those of all rows.
        skip_unlabeled: leave out the rows without a label and log their number; otherwise such a row is an error.
        file_column, label_column, ...: the name of the column with that role.
        format: "csv", "tsv", "json", "jsonl" or "parquet"; "auto" infers it from the file's name and first line.

    Example:
        >>> examples = Manifest("data/labels.csv", split="train").read()  # columns: filename, label, split
        >>> examples.classes, examples.counts()
        (('cat', 'dog'), array([8, 8]))
    """

    former_fields = {"skip_unlabelled": "skip_unlabeled"}

    path: PathText
    root: PathText | None = None
    classes: tuple[str, ...] | None = Field(None, min_length=1)
    labels: LabelFormat = "auto"
    split_name: str | None = Field(None, alias="split")  # `split` is a method of every source
    skip_unlabeled: bool = False
    file_column: str | None = None
    label_column: str | None = None
    labels_column: str | None = None
    probabilities_column: str | None = None
    unknown_column: str | None = None
    weight_column: str | None = None
    crop_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    format: Format = "auto"

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ConfigError(f"should have each class once, got {twice!r} twice.")
        return classes

    def read(self) -> Examples:
        other = SOURCE_OF_SUFFIX.get(os.path.splitext(self.path)[1].lower())
        if other is not None:
            raise DataError(f"{self.path} is not a table. Use {other}({self.path!r}).")
        layout = layout_of(self.path, self.format)
        collector = self._gather(layout)
        columns, labels, table = collector.columns, collector.labels, collector.table
        if columns is None and collector.skipped:
            self._check_all_columns(collector)
        if columns is None or labels is None:
            problem = "no row with a label" if collector.skipped else "column names but no row"
            raise DataError(f"{self.path} has {problem}; expected one for each image.")
        skipped = np.frombuffer(collector.skipped, np.int64)
        if len(skipped):
            logging.warning(
                "Skipped %s: %s, the first in %s.",
                *(counted(len(skipped), "row{s} without a label"), self.path, self._position(layout, int(skipped[0]))),
            )
        self._check_all_columns(collector)
        labeled = np.setdiff1d(np.arange(collector.num_rows), skipped, assume_unique=True) if len(skipped) else None
        where = LabelLocation(
            self.path,
            lambda row: f"{self.path} {self._position(layout, row if labeled is None else int(labeled[row]))}",
            columns.label,
            cure="Set labels='names' if it is the class's name.",
        )
        examples = Examples.of_images(
            images_at(table.packed_paths()),
            *labels.interpret(collector.class_numbers, where),
            self.path,
            table.weight_column(),
            table.crop_column(),
            table.group_column(),
        )
        return examples if self.split_name is None else examples.take(self._rows_of_split(table))

    @property
    def base_folder(self) -> str:
        """The folder to which its paths are relative."""
        return os.path.dirname(self.path) if self.root is None else self.root

    def split_names(self) -> list[str]:
        """The values of the split column, in the order of appearance; empty if there is no such column.

        Raises:
            DataError: the file or a row is invalid; the message names the line.
        """
        return [name for name in self._gather(layout_of(self.path, self.format)).table.split_counts() if name]

    def _gather(self, layout: Layout) -> RowCollector:
        """Reads all rows, in batches with pyarrow, or row by row if the file needs the exact reader.

        Raises:
            DataError: the file or a row is invalid; the message names the line.
        """
        if layout.kind == "json":
            return self._gather_rows(read_rows(self.path, layout))
        from model_trainer.sources.manifest.batches import gather_batches  # loads pyarrow

        collector = self._new_collector(uniform=layout.kind != "jsonl")
        if gather_batches(self.path, layout, collector):
            return collector
        # Without columns of files and labels, any column will do to find out whether there are rows, which is an error.
        only = list(collector.names)[:1] if collector.columns is None else collector.columns.read()
        return self._gather_rows(
            read_rows(self.path, layout, only), collector.names if layout.kind == "parquet" else {}
        )

    def _gather_rows(self, rows: Rows, names: Mapping[str, None] = MappingProxyType({})) -> RowCollector:
        """Reads all rows, one by one; `names` are columns that rows may lack."""
        collector = self._new_collector(uniform=rows.uniform)
        collector.names.update(names)
        for position, row in rows.rows:
            try:
                collector.add_row(row)
            except DataError as error:
                affects_all_rows = rows.uniform and collector.columns is None
                raise DataError(
                    f"{self.path}{'' if affects_all_rows else f' {rows.unit} {position}'}: {error}"
                ) from None
        return collector

    def _new_collector(self, *, uniform: bool) -> RowCollector:
        return RowCollector(
            self.base_folder,
            {role: getattr(self, f"{role}_column") for role in ROLES},
            self.labels,
            self.classes,
            skip_unlabeled=self.skip_unlabeled,
            uniform=uniform,
        )

    def _check_all_columns(self, collector: RowCollector) -> None:
        """Logs which of several possible columns are read, and warns if the rows of several splits are.

        Raises:
            DataError: no row has a requested column.
        """
        try:
            columns = find_columns(collector.names, collector.requested, all_known=True)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        for note in columns.notes:
            logging.info("%s: %s.", self.path, note)
        if collector.table.first_windows_path:
            logging.info(r"%s: paths such as %s are read with / for \.", self.path, collector.table.first_windows_path)
        counts = collector.table.split_counts()
        if self.split_name is None and len(counts) > 1:
            logging.warning(
                "%s: rows of all splits are read: %s. Set split=%r to read only that one.",
                *(self.path, _listed(counts), next(iter(counts))),
            )

    def _rows_of_split(self, table: Table) -> np.ndarray:
        counts = table.split_counts()
        if not counts:
            raise DataError(
                f"{self.path} has no column that says which rows are {self.split_name!r}; set split_column."
            )
        if self.split_name not in counts:
            raise DataError(
                f"{self.path}: no row has the split {self.split_name!r}; there are {_listed(counts)}."
                f"{nearest(str(self.split_name), counts)}"
            )
        return table.rows_of_split(self.split_name)

    def _position(self, layout: Layout, row: int) -> str:
        """The position of a row, such as "line 17", for messages only: it reads the file once more."""
        if layout.kind == "parquet":
            return f"row {row + 1}"
        rows = read_rows(self.path, layout)
        position, _ = next(itertools.islice(rows.rows, row, None))
        return f"{rows.unit} {position}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {count:,}" for name, count in counts.items())
