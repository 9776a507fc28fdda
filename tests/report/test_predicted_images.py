"""Pairing the predictions of two runs: crops of one file, columns of other types, and decompression bombs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.report.predicted_images import pair_runs
from model_trainer.report.run_files import read_run


def refused(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    assert exit_code_of(lambda: app(["report", *map(str, folders)])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_each_crop_of_a_file_is_compared_with_the_same_crop(pair: tuple[Path, Path]) -> None:
    """Each image has two crops: the second one is wrong in both runs, and the first one of 3.jpg in the second run."""
    for folder in pair:
        rows = [f"{k}.jpg,bag,{label},{label == 'bag'},0.5" for k in range(10) for label in ("bag", "coat")]
        if folder == pair[1]:
            rows[6] = "3.jpg,bag,coat,False,0.5"
            rows = rows[10:] + rows[:10]
        header = "image,true_label,predicted_label,correct,loss"
        (folder / "evaluation" / "predictions.csv").write_text(
            "\n".join([header, *rows, f"{folder.name}.jpg,bag,bag,True,0"])
        )
    compared = pair_runs(*map(read_run, pair))
    assert compared is not None
    assert [each.image for each in compared.worse] == ["3.jpg"]
    assert (compared.num_better, compared.correct.num_images, compared.num_missing) == (0, 20, 2)


def test_a_crop_of_only_one_run_counts_as_missing(pair: tuple[Path, Path]) -> None:
    for folder, count in zip(pair, (3, 2), strict=True):
        rows = ["image,true_label,predicted_label,correct", *["a.jpg,bag,bag,True"] * count]
        (folder / "evaluation" / "predictions.csv").write_text("\n".join(rows))
    compared = pair_runs(*map(read_run, pair))
    assert compared is not None
    assert (compared.correct.num_images, compared.num_missing, compared.loss) == (2, 1, None)


def predictions(**changes: list[Any]) -> Any:
    columns = {"image": ["a", "b"], "true_label": ["x", "y"], "predicted_label": ["x", "x"], "correct": [True, False]}
    return pa.table(columns | {"loss": [0.5, 1.5]} | changes)


@pytest.mark.parametrize(
    "table",
    [
        predictions(image=[["a"], ["b"]]), predictions(correct=["maybe", "x"]), predictions(loss=["<", ">"]),
        predictions(predicted_label=[[1], [2]]), predictions().drop_columns("true_label"),
        pa.table({name: [0] for name in ("image", "true_label", "predicted_label")} | {"correct": ["\x00"]}),
    ],
)  # fmt: skip
def test_columns_of_another_type_give_one_message(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], table: Any
) -> None:
    pa.parquet.write_table(table, pair[1] / "evaluation" / "predictions.parquet")
    assert f"{pair[1]}/evaluation/predictions.parquet is damaged: " in refused([*pair], capsys)


def bomb_of_rows(path: Path) -> None:
    nothing = pa.nulls(2_000_000, pa.string())
    columns = dict.fromkeys(("image", "true_label", "predicted_label"), nothing)
    pa.parquet.write_table(pa.table(columns | {"correct": nothing.cast(pa.bool_())}), path)


def bomb_of_text(path: Path) -> None:
    """A dictionary column in which 2,000 rows refer to one long name."""
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), ["a" * 1_000_000])
    labels = pa.array(["x"] * 2_000)
    columns = {"image": names, "true_label": labels, "predicted_label": labels, "correct": [True] * 2_000}
    pa.parquet.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("write", "reason"), [(bomb_of_rows, "it claims 2,000,000 rows"), (bomb_of_text, "it decodes to more than")]
)
def test_predictions_that_decode_to_too_much_data_are_refused(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], write: Callable[[Path], None], reason: str
) -> None:
    path = pair[1] / "evaluation" / "predictions.parquet"
    write(path)
    assert path.stat().st_size < 200_000
    assert reason in refused([*pair], capsys)


def test_the_difference_of_infinite_losses_is_undefined(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        pa.parquet.write_table(predictions(loss=[0.5, float("inf")]), folder / "evaluation" / "predictions.parquet")
    compared = pair_runs(*map(read_run, pair))
    assert compared is not None
    assert compared.loss is None


def test_a_message_about_predictions_has_no_control_sequence(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pa.parquet.write_table(predictions(loss=["\x1b[31m"] * 2), pair[1] / "evaluation" / "predictions.parquet")
    assert "\\x1b[31m" in refused([*pair], capsys)


@pytest.mark.parametrize("name", ["predictions.parquet", "predictions.csv"])
def test_predictions_that_are_a_pipe_are_refused(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = pair[1] / "evaluation" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert "it is not a regular file" in refused([*pair], capsys)
