"""The predictions of a run for each image, and which of them another run made differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.errors import DataError
from model_trainer.metrics.paired import PairedComparison, changed_sides, compare_scores
from model_trainer.report.run_files import RunFiles
from model_trainer.storage import files

__all__ = ["ChangedImage", "PairedRuns", "pair_runs", "read_predictions"]

MAX_CHANGED = 50  # images of either kind in the page
COLUMNS = {  # of a task with classes, and of one with tags
    "true": ("true_label", "true_labels"),
    "predicted": ("predicted_label", "predicted_labels"),
    "correct": ("correct", "exact_match"),
    "loss": ("loss",),
}


@dataclass(frozen=True)
class ChangedImage:
    """An image that one run predicts right and the other wrong."""

    image: str
    true: str
    first: str
    second: str


@dataclass(frozen=True)
class PairedRuns:
    """Two runs on the same images.

    Attributes:
        correct: the difference of the fraction of right images.
        loss: the difference of the mean loss; None if a run has no losses.
        worse, better: images that the second run lost and won, at most 50 of each.
        num_worse, num_better: how many there are.
        num_other_labels: images left out because the runs know another true label for them.
        num_missing: images that only one of the runs has predicted.
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
    import pyarrow.csv
    import pyarrow.parquet

    folder = run.path / "evaluation"
    path = next(
        (folder / name for name in ("predictions.parquet", "predictions.csv") if files.exists(folder / name)), None
    )
    if path is None:
        return None
    try:
        with files.local_copy(path) as local:
            table = pa.parquet.read_table(local) if path.suffix == ".parquet" else _read_csv(local)
        names = {
            key: next(name for name in choices if name in table.column_names)
            for key, choices in COLUMNS.items()
            if key != "loss" or "loss" in table.column_names
        }
        return pa.table({"image": table["image"]} | {key: table[name] for key, name in names.items()})
    except (pa.ArrowException, KeyError, StopIteration, OSError) as error:
        reason = str(error).partition("\n")[0] or "a column is missing"
        raise DataError(f"{path} is damaged: {reason}. Evaluate again: model-trainer evaluate {run.path}") from error


def _read_csv(path: Any) -> Any:
    import pyarrow as pa
    import pyarrow.csv

    texts = dict.fromkeys(("image", *COLUMNS["true"], *COLUMNS["predicted"]), pa.string())
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=texts))


def pair_runs(first: RunFiles, second: RunFiles) -> PairedRuns | None:
    """Compares the predictions of two runs, image by image; None if they have no image in common.

    Raises:
        DataError: a file of predictions is damaged.
    """
    import pyarrow.compute as pc

    tables = [read_predictions(first), read_predictions(second)]
    if tables[0] is None or tables[1] is None:
        return None
    rows_in_first = pc.index_in(tables[1]["image"], value_set=tables[0]["image"].combine_chunks())
    is_common = pc.is_valid(rows_in_first)
    one, two = tables[0].take(pc.drop_null(rows_in_first)), tables[1].filter(is_common)
    num_missing = len(tables[0]) + len(tables[1]) - 2 * len(two)
    same_label = pc.equal(one["true"], two["true"])
    num_common = len(two)
    one, two = one.filter(same_label), two.filter(same_label)
    if not len(two):
        return None
    correct = [_numbers(one["correct"]), _numbers(two["correct"])]
    changed = changed_sides(*correct)
    has_loss = "loss" in one.column_names and "loss" in two.column_names
    return PairedRuns(
        correct=compare_scores(*correct),
        loss=compare_scores(_numbers(one["loss"]), _numbers(two["loss"])) if has_loss else None,
        worse=_images(one, two, changed.only_first[:MAX_CHANGED]),
        better=_images(one, two, changed.only_second[:MAX_CHANGED]),
        num_worse=len(changed.only_first),
        num_better=len(changed.only_second),
        num_other_labels=num_common - len(two),
        num_missing=num_missing,
    )


def _numbers(column: Any) -> np.ndarray:
    """Float, NaN where there is none; "True" and "False" are 1 and 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        column = pc.equal(pc.utf8_lower(column), "true")
    values: np.ndarray = pc.cast(column, pa.float64()).to_numpy()
    return values


def _images(first: Any, second: Any, rows: np.ndarray) -> tuple[ChangedImage, ...]:
    chosen = [first.take(rows).to_pydict(), second.take(rows).to_pydict()]
    return tuple(
        ChangedImage(str(image), str(true), str(one), str(two))
        for image, true, one, two in zip(
            chosen[0]["image"], chosen[0]["true"], chosen[0]["predicted"], chosen[1]["predicted"], strict=True
        )
    )
