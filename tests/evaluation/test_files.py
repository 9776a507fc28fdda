"""The files that an evaluation writes: predictions as CSV and Parquet, probabilities, and evaluation.json."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from model_trainer.evaluation import files as evaluation_files
from model_trainer.evaluation.files import write_evaluation, write_predictions

NAMES = ["a.jpg", 'with "quotes", and commas.jpg', "line\nbreak.jpg", "bytes\udcff.jpg"]
COLUMNS = {
    "true_label": ["cat", "dog", "cat", "dog"],
    "probability": np.array([0.25, 0.5, 1.0, np.nan], np.float32),
    "correct": np.array([True, False, True, True]),
}
TABLE = np.random.default_rng(0).random((4, 2)).astype(np.float32)


@pytest.mark.parametrize("rows", [2, 3, 100], ids="{} rows at a time".format)
def test_csv_and_parquet_have_the_same_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: int) -> None:
    monkeypatch.setattr(evaluation_files, "ROWS_PER_CHUNK", rows)
    write_predictions(tmp_path, NAMES, COLUMNS, TABLE)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert list(lines[0]) == list(table) == ["image", "true_label", "probability", "correct"]
    assert [line["image"] for line in lines] == table["image"] == [*NAMES[:3], "bytes\\udcff.jpg"]
    assert [line["correct"] for line in lines] == ["true", "false", "true", "true"]
    assert table["correct"] == [True, False, True, True]
    np.testing.assert_array_equal([float(line["probability"]) for line in lines], table["probability"])
    np.testing.assert_array_equal(np.load(tmp_path / "probabilities.npy"), TABLE)


def test_tables_without_images_still_have_their_columns(tmp_path: Path) -> None:
    write_predictions(tmp_path, [], {"true_label": []}, np.zeros((0, 2), np.float32))
    assert (tmp_path / "predictions.csv").read_text() == "image,true_label\n"
    assert pq.read_table(tmp_path / "predictions.parquet").column_names == ["image", "true_label"]


def test_evaluation_json_is_strict_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation(tmp_path, {"metrics": {"accuracy": {"value": float("nan")}}})
    write_evaluation(tmp_path, {"metrics": {"accuracy": {"value": None}}})
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text) == {"version": 1, "metrics": {"accuracy": {"value": None}}}


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    write_evaluation(tmp_path, {"metrics": {}, "classes": ["caf\udce9"], "caf\udce9": {"a": ["caf\udce9"]}})
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text)["classes"] == ["caf\\udce9"]
    assert json.loads(text)["caf\\udce9"] == {"a": ["caf\\udce9"]}
