"""The predictions of a run for each image, and the images that another run predicts differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_trainer.errors import DataError, StorageError
from model_trainer.messages import shown
from model_trainer.metrics.paired import PairedComparison, compare_scores, discordant_images
from model_trainer.report.json_files import shortened
from model_trainer.report.run_files import RunFiles
from model_trainer.storage import files
from model_trainer.storage.read import NOT_REGULAR

__all__ = ["ChangedImage", "PairedRuns", "pair_runs", "read_predictions"]

MAX_CHANGED = 50  # images of either kind in the page
COLUMNS = {  # of a task with classes, and of one with tags
    "true": ("true_label", "true_labels"),
    "predicted": ("predicted_label", "predicted_labels"),
    "correct": ("correct", "exact_match"),
    "loss": ("loss",),
}
TEXTS = ("image", *COLUMNS["true"], *COLUMNS["predicted"])
NUMBERS = ("correct", "loss")
NEEDED = (*TEXTS, *COLUMNS["correct"], *COLUMNS["loss"])
BATCH_ROWS = 4_096
# Equal names compress to almost nothing, so a small file can decode to a huge table.
MAX_TABLE_BYTES = 1_000_000_000  # decoded; a million images have 200 MB


@dataclass(frozen=True)
class ChangedImage:
    """An image that one run predicts correctly and the other does not; labels as text."""

    image: str
    true: str
    first: str
    second: str


@dataclass(frozen=True)
class PairedRuns:
    """Two runs on the same images.

    Attributes:
        correct: the difference of the fraction of correctly predicted images.
        loss: the difference of the mean loss; None if a run has no losses, or an infinite one.
        worse, better: images that only the first run, or only the second, predicts correctly; at most 50 of each.
        num_worse, num_better: how many there are.
        num_other_labels: number of images left out because the runs have different true labels for them.
        num_missing: number of images that only one of the runs has predicted.
    """

    correct: PairedComparison
    loss: PairedComparison | None
    worse: tuple[ChangedImage, ...]
    better: tuple[ChangedImage, ...]
    num_worse: int
    num_better: int
    num_other_labels: int
    num_missing: int


def read_predictions(run: RunFiles) -> Any | None:
    """Reads evaluation/predictions.parquet or .csv as an Arrow table: image, true, predicted, correct, perhaps loss.

    Returns:
        The table; None if there is neither file.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa

    folder = run.path / "evaluation"
    path = next(
        (folder / name for name in ("predictions.parquet", "predictions.csv") if files.exists(folder / name)), None
    )
    if path is None:
        return None
    try:
        if not files.is_file(path):
            raise OSError(0, NOT_REGULAR)
        with files.local_copy(path) as local:
            table = (_read_parquet if path.suffix == ".parquet" else _read_csv)(local)
        columns = {"image": table["image"].cast(pa.string())}
        for key, names in COLUMNS.items():
            name = next((name for name in names if name in table.column_names), None)
            if name is not None:
                columns[key] = _numbers(table[name]) if key in NUMBERS else table[name].cast(pa.string())
            elif key != "loss":
                raise KeyError(f"there is no column {names[0]}")
        return pa.table(columns)
    except StorageError:
        raise
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        text = str(getattr(error, "strerror", None) or error).strip("'").partition("\n")[0].rstrip(".")
        reason = shown(shortened(text)) or type(error).__name__
        raise DataError(f"{path} is damaged: {reason}. Evaluate again: model-trainer evaluate {run.path}") from error


def _read_parquet(path: Path) -> Any:
    """The columns that the comparison needs; ValueError if the file decodes to more than any table of predictions."""
    import pyarrow as pa
    import pyarrow.parquet

    from model_trainer.sources.manifest.parquet import MAX_ROWS_PER_BYTE, PLAUSIBLE_ROWS, decoded_bytes

    texts = [
        field.name for field in pa.parquet.read_schema(path) if field.name in TEXTS and pa.types.is_string(field.type)
    ]
    with pa.parquet.ParquetFile(path, read_dictionary=texts) as file:
        entry = files.info(path)
        data, num_bytes = file.metadata, 0 if entry is None else entry.size
        if data.num_rows > PLAUSIBLE_ROWS + MAX_ROWS_PER_BYTE * num_bytes:
            raise ValueError(f"it claims {data.num_rows:,} rows in {num_bytes:,} bytes")
        chosen = [field for field in file.schema_arrow if field.name in NEEDED]
        chunks = [
            data.row_group(group).column(column)
            for group in range(data.num_row_groups)
            for column in range(data.num_columns)
            if data.schema.column(column).name in NEEDED
        ]
        if sum(chunk.total_uncompressed_size for chunk in chunks) > MAX_TABLE_BYTES:
            raise ValueError(f"it has more than the limit of {MAX_TABLE_BYTES:,} bytes")
        batches, decoded = [], 0
        for batch in file.iter_batches(BATCH_ROWS, columns=[field.name for field in chosen]):
            decoded += sum(map(decoded_bytes, batch.columns))
            if decoded > MAX_TABLE_BYTES:
                raise ValueError(f"it decodes to more than the limit of {MAX_TABLE_BYTES:,} bytes")
            batches.append(batch)
        return pa.Table.from_batches(batches, pa.schema(chosen))


def _read_csv(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv

    entry = files.info(path)
    if entry is not None and entry.size > MAX_TABLE_BYTES:
        raise ValueError(f"it has more than the limit of {MAX_TABLE_BYTES:,} bytes")
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string())))


def _numbers(column: Any) -> Any:
    """The column as float64, null where it has no value; "True" and "False" are 1 and 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).cast(pa.bool_())  # takes "true", "false", 1 and 0, in any case
    return pc.cast(column, pa.float64())


def pair_runs(first: RunFiles, second: RunFiles) -> PairedRuns | None:
    """Compares the predictions of two runs, image by image.

    Returns:
        None if a run has no predictions, or they have no image with the same true label in common.

    Raises:
        DataError: a file of predictions is damaged.
    """
    import pyarrow.compute as pc

    tables = [read_predictions(first), read_predictions(second)]
    if tables[0] is None or tables[1] is None:
        return None
    rows_in_first = _rows_in(tables[0]["image"], tables[1]["image"])
    is_common = pc.is_valid(rows_in_first)
    one, two = tables[0].take(pc.drop_null(rows_in_first)), tables[1].filter(is_common)
    num_missing = len(tables[0]) + len(tables[1]) - 2 * len(two)
    same_label = pc.equal(one["true"], two["true"])
    num_common = len(two)
    one, two = one.filter(same_label), two.filter(same_label)
    if not len(two):
        return None
    correct = [one["correct"].to_numpy(), two["correct"].to_numpy()]
    changed = discordant_images(*correct)
    losses = [table["loss"].to_numpy() for table in (one, two) if "loss" in table.column_names]
    has_loss = len(losses) == 2 and not np.isinf(losses).any()
    return PairedRuns(
        correct=compare_scores(*correct),
        loss=compare_scores(*losses) if has_loss else None,
        worse=_images(one, two, changed.only_first[:MAX_CHANGED]),
        better=_images(one, two, changed.only_second[:MAX_CHANGED]),
        num_worse=len(changed.only_first),
        num_better=len(changed.only_second),
        num_other_labels=num_common - len(two),
        num_missing=num_missing,
    )


def _rows_in(first: Any, second: Any) -> Any:
    """For each image of `second` its row in `first`, null if there is none.

    Crops of one file have its name: the first of them in one run is the first in the other, and so on.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pc.unique(pa.chunked_array([*first.chunks, *second.chunks], pa.string()))
    keys = []
    for column in (first, second):
        # A number for each name and its occurrence.
        which = pc.index_in(column, value_set=names).to_numpy().astype(np.int64)
        keys.append(pa.array(which * (max(len(first), len(second)) + 1) + _occurrences(which)))
    return pc.index_in(keys[1], value_set=keys[0])


def _occurrences(values: np.ndarray) -> np.ndarray:
    """For each value, how many values before it are equal to it."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])) if len(values) else in_order
    occurrences = np.empty(len(values), np.int64)
    occurrences[order] = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    return occurrences


def _images(first: Any, second: Any, rows: np.ndarray) -> tuple[ChangedImage, ...]:
    chosen = [first.take(rows).to_pydict(), second.take(rows).to_pydict()]
    return tuple(
        ChangedImage(*(shortened(str(each)) for each in (image, true, one, two)))
        for image, true, one, two in zip(
            chosen[0]["image"], chosen[0]["true"], chosen[0]["predicted"], chosen[1]["predicted"], strict=True
        )
    )
