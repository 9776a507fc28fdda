"""The notebooks of docs/notebooks/ run, and their committed outputs come from their current code."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SCRIPT = runpy.run_path(str(ROOT / "script" / "execute_notebooks.py"))
MAX_BYTES = 300_000
LABELS = {"ankle-boot", "bag", "coat", "dress", "pullover", "sandal", "shirt", "sneaker", "t-shirt", "trouser"}

of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(cell: Any, kind: str) -> list[str]:
    """The outputs of a cell that have MIME type `kind`; printed text counts as text/plain."""
    shown = [output.get("data", {}).get(kind) for output in cell.outputs]
    printed = [output.text for output in cell.outputs if output.output_type == "stream" and kind == "text/plain"]
    return [text for text in shown if text] + printed


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"train", "data", "evaluate"}


@of_each
def test_all_names_imported_by_a_notebook_exist(path: Path) -> None:
    for cell in code_cells(read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                assert node.module
                assert getattr(importlib.import_module(node.module), alias.name) is not None


@of_each
def test_the_committed_outputs_belong_to_the_current_code(path: Path) -> None:
    notebook = read(path)
    assert notebook.metadata["executed"] == SCRIPT["code_digest"](notebook), "run script/execute_notebooks.py"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@of_each
def test_outputs_have_no_errors_and_no_standard_error(path: Path) -> None:
    outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@of_each
def test_outputs_contain_no_absolute_path(path: Path) -> None:
    for cell in code_cells(read(path)):
        for text in [*outputs_of(cell, "text/plain"), *outputs_of(cell, "text/html")]:
            assert not re.search(r"(?<![\w.>])(/|[A-Z]:\\)\w+/", re.sub(r"base64,[\w+/=]+", "", text))


@of_each
def test_a_notebook_file_is_small(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES


@of_each
def test_links_in_a_notebook_lead_to_files(path: Path) -> None:
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        assert (path.parent / target).is_file()


# Executed notebooks; about 13 CPU seconds each, 5 of them to import TensorFlow.


def check_train(cells: list[Any]) -> None:
    run, training, result = cells[3:6]
    assert any("training.batch_size" in html for html in outputs_of(run, "text/html"))
    messages, results = outputs_of(training, "text/plain")
    lines = messages.splitlines()
    assert lines[0] == "Reading the data ..."
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == [f"epoch {n}/4" for n in (1, 2, 3, 4)]
    assert lines[-1].startswith("Report: output/clothes-")
    accuracy = re.search(r"val_accuracy (0\.\d+)", [line for line in lines if line.startswith("epoch")][-1])
    assert accuracy is not None
    assert float(accuracy[1]) > 0.7
    assert results.startswith("Results: output/clothes-")
    (html,) = outputs_of(result, "text/html")
    assert "★ model_max_acc" in html
    assert "<svg" in html
    assert outputs_of(cells[-1], "text/plain")[0].startswith("('sneaker', ")


def check_data(cells: list[Any]) -> None:
    html = "".join(text for cell in cells for text in outputs_of(cell, "text/html"))
    for text in ("2,000 images of 10 classes", "200 images of 3 classes", "1 truncated image", "2.png is truncated"):
        assert text in html
    assert outputs_of(cells[-1], "image/png")


def check_evaluate(cells: list[Any]) -> None:
    (evaluated,) = (text for cell in cells for text in outputs_of(cell, "text/html") if ">Evaluation<" in text)
    accuracy = re.search(r"accuracy</th><td>(0\.\d+)", evaluated)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.7
    predicted = next(text for cell in cells for text in outputs_of(cell, "text/html") if "Predictions for 11" in text)
    assert predicted.count("data:image/jpeg") == 10
    assert "no-such-photo.jpg does not exist" in predicted


CHECKS: dict[str, Callable[[list[Any]], None]] = {"train": check_train, "data": check_data, "evaluate": check_evaluate}


def words_in(cell: Any) -> set[str]:
    """The words in the outputs of a cell, without anything measured: numbers, units, predicted labels."""
    shown = "\n".join([*outputs_of(cell, "text/plain"), *outputs_of(cell, "text/html")])
    text = re.sub(r"(?s)<style.*?</style>|<[^>]*(?:>|$)", " ", unescape(shown))
    text = re.sub(r"[^\s'\"(]*\d[^\s'\",)]*", " ", text)
    return set(re.findall(r"[A-Za-z_][\w-]+", text)) - LABELS - {"min"}


@pytest.mark.slow
@of_each
def test_a_notebook_runs_in_an_empty_folder_with_the_committed_outputs(path: Path, tmp_path: Path) -> None:
    notebook = SCRIPT["execute"](path, tmp_path)
    for executed, committed in zip(code_cells(notebook), code_cells(read(path)), strict=True):
        assert words_in(executed) == words_in(committed), f"run script/execute_notebooks.py {path.name}"
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    if path.stem in CHECKS:
        CHECKS[path.stem](cells)
