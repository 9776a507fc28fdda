"""A table of images and labels in one file, as a source."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import final

import numpy as np
from absl import logging
from pydantic import Field, field_validator

from model_trainer.errors import ConfigError, DataError
from model_trainer.messages import counted, nearest
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files
from model_trainer.sources.labels.location import LabelLocation
from model_trainer.sources.labels.texts import TextsAs
from model_trainer.sources.manifest.columns import ROLES, Columns, find_columns
from model_trainer.sources.manifest.labels import LabelReader, TagReader, make_label_reader
from model_trainer.sources.manifest.number_names import note_names
from model_trainer.sources.manifest.rows import Format, Row, Rows, read_rows
from model_trainer.sources.manifest.table import Table
from model_trainer.sources.manifest.values import is_missing
from model_trainer.sources.path_text import PathText
from model_trainer.sources.source import Source

__all__ = ["Manifest"]

OTHERS = {".rec": "RecordIO", ".lst": "MxnetList", ".tfrecord": "TFRecords", ".tfrecords": "TFRecords"}


@final
class Manifest(Source):
    """The images that a table names, a row for each: `Manifest("data/train.csv", root="data/images")`.

    The file is UTF-8: CSV (also with ";" or tabs), TSV, JSON Lines (also SageMaker's augmented manifests), or JSON: a
    list of records, such as keras-trainer's `train_data.json`, or a table by columns as pandas writes it. CSV, TSV and
    JSON Lines are read row by row; JSON is held in memory while it is read.

    Columns are found by their usual names, in any case, or given:
        file: `filename`, `path`, `file`, `source-ref`, `image`, ...
        label: one for each image: `class_name`, `label`, `class`, ...; or class numbers: `class_id`.
        labels: any number: `labels`, `tags`; a list, or text such as "red|dress". Empty text and [] mean none.
        probabilities: `class_probabilities`, a number for each class; a row sums to 1, within 0.001.
        unknown: `unknown`, tags of which nobody knows whether the image has them.
        weight: at least 0, how much the image counts; empty counts 1.
        crop: `[x, y, width, height]` in pixels of the upright image; empty or null is the whole image.
        split: a name such as "train", see `split`.
        group: `Manifest(...).split(val=0.1)` never parts images with the same value; empty stands alone.
    Labels come from the first of probabilities, labels, label that is there. Files are not looked for here.

    Fields:
        path: the file.
        root: the folder below which its paths are; None means the folder of the file.
        classes: names of the classes in the order of the model's outputs; None means the labels of all rows, sorted,
            and of class numbers "0" up to the largest, or the names that SageMaker's metadata give.
        labels: how labels are written: "names", "indices" (class numbers) or "multi_hot" (lists of 0 and 1, and -1 or
            null for unknown); "auto" tells it from all rows, and a line in the log says what was found.
        split: only the rows that have this in their split column; the classes are those of all rows.
        skip_unlabelled: leave out the rows without a label, and say how many they are; otherwise the first ends the
            reading.
        file_column, label_column, ...: the column with that meaning.
        format: "csv", "tsv", "json" or "jsonl"; "auto" tells it from the file's name and first line.

    Example:
        >>> examples = Manifest("data/labels.csv", split="train").read()  # columns: filename, label, split
        >>> examples.classes, examples.counts()
        (('cat', 'dog'), array([8, 8]))
    """

    path: PathText
    root: PathText | None = None
    classes: tuple[str, ...] | None = Field(None, min_length=1)
    labels: TextsAs = "auto"
    part: str | None = Field(None, alias="split")  # `split` is what every source does
    skip_unlabelled: bool = False
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
        other = OTHERS.get(os.path.splitext(self.path)[1].lower())
        if other is not None:
            raise DataError(f"{self.path} is no table. Take {other}({self.path!r}).")
        rows = read_rows(self.path, self.format)
        table = Table(os.path.dirname(self.path) if self.root is None else self.root)
        names: dict[int, str] = {}  # of class numbers, from metadata
        columns: Columns | None = None
        labels: LabelReader | None = None
        seen: dict[str, None] = {}  # names of columns, in the order of appearance
        unlabelled: list[int] = []  # places of rows
        for place, row in rows.rows:
            try:
                if columns is None or not row.keys() <= seen.keys():
                    seen.update(dict.fromkeys(row))
                    is_first = columns is None and self.skip_unlabelled and not rows.uniform
                    # Of JSON Lines the first rows may not even have the key; if none has, that is said at the end.
                    with contextlib.suppress(DataError) if is_first else contextlib.nullcontext():
                        columns = self._columns(seen, columns, all_known=rows.uniform)
                if columns is None or (self.skip_unlabelled and _is_unlabelled(row, columns, labels)):
                    unlabelled.append(place)
                    continue
                if labels is None:
                    labels = make_label_reader(columns, row, self.labels, self.classes)
                table.add(row, columns)
                labels.add(row, columns)
                if columns.metadata is not None:
                    note_names(row.get(columns.metadata), row.get(columns.label), names)
            except DataError as error:
                of_all = rows.uniform and columns is None
                raise DataError(f"{self.path if of_all else self._where(rows, place)}: {error}") from None
        if columns is None and unlabelled:
            self._check_all_columns(seen, table)
        if columns is None or labels is None:
            without = "no row with a label" if unlabelled else "column names but no row"
            raise DataError(f"{self.path} has {without}; expected one for each image.")
        if unlabelled:
            logging.warning(
                "Skipped %s: %s, the first in %s %s.",
                *(counted(len(unlabelled), "row{s} without a label"), self.path, rows.unit, f"{unlabelled[0]:,}"),
            )
        self._check_all_columns(seen, table)
        is_skipped = frozenset(unlabelled)
        where = LabelLocation(
            self.path,
            lambda number: self._where_is_row(number, is_skipped),
            columns.label,
            cure="Say labels='names' if it is the class's name.",
        )
        examples = Examples.of_images(
            Files(table.texts()),
            *labels.interpret(names, where),
            self.path,
            table.weight_column(),
            table.crop_column(),
            table.group_column(),
        )
        return examples if self.part is None else examples.take(self._rows_of_part(table))

    def _columns(self, names: dict[str, None], before: Columns | None, *, all_known: bool) -> Columns:
        asked = {role: getattr(self, f"{role}_column") for role in ROLES}
        columns = find_columns(names, asked, all_known=all_known)
        if before is not None and (before.label, before.kind) != (columns.label, columns.kind):
            raise DataError(
                f"labels stand in {columns.label!r}, but in {before.label!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read, such as label_column={before.label!r}."
            )
        if before is not None and before.file != columns.file:
            raise DataError(
                f"the file stands in {columns.file!r}, but in {before.file!r} in the rows before. Give all rows the "
                f"same columns, or name the one to read: file_column={before.file!r}."
            )
        return columns

    def _check_all_columns(self, names: dict[str, None], table: Table) -> None:
        """Says what was chosen among all columns, and whether parts were mixed.

        Raises:
            DataError: a column that was given is in no row.
        """
        try:
            columns = self._columns(names, None, all_known=True)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        for note in columns.notes:
            logging.info("%s: %s.", self.path, note)
        if table.first_windows_path:
            logging.info(r"%s: paths such as %s are read with / for \.", self.path, table.first_windows_path)
        counts = table.part_counts()
        if self.part is None and len(counts) > 1:
            logging.warning(
                "%s: rows of all splits are read: %s. Say split=%r for one of them.",
                *(self.path, _listed(counts), next(iter(counts))),
            )

    def _rows_of_part(self, table: Table) -> np.ndarray:
        counts = table.part_counts()
        if not counts:
            raise DataError(f"{self.path} has no column that says which rows are {self.part!r}; give split_column.")
        if self.part not in counts:
            raise DataError(
                f"{self.path}: no row has the split {self.part!r}; there are {_listed(counts)}."
                f"{nearest(str(self.part), counts)}"
            )
        return table.rows_of_part(self.part)

    def _where(self, rows: Rows, place: int) -> str:
        return f"{self.path} {rows.unit} {place}"

    def _where_is_row(self, number: int, is_skipped: frozenset[int]) -> str:
        rows = read_rows(self.path, self.format)  # once more, and only for a message: places take 8 bytes each
        places = (place for place, _ in rows.rows if place not in is_skipped)
        return self._where(rows, next(itertools.islice(places, number, None)))


def _is_unlabelled(row: Row, columns: Columns, labels: LabelReader | None) -> bool:
    value = row.get(columns.label)
    # Of tags, empty text says that the image has none.
    are_tags = columns.kind == "labels" or isinstance(labels, TagReader)
    return value is None or value != value if are_tags else is_missing(value)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {count:,}" for name, count in counts.items())
