"""`model-trainer runs`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name, epochs in (("a-20261126-120000", 3), ("b-20261126-130000", 2)):
        (tmp_path / name).mkdir()
        options = {"run": {"training": {"epochs": epochs, "batch_size": 8}}}
        (tmp_path / name / "training_options.json").write_text(json.dumps(options))
    return tmp_path


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code_of(lambda: app(["runs", *map(str, arguments)]))
        return (code, *capsys.readouterr())

    return run


def test_json_is_a_list_of_runs_with_only_the_settings_that_differ(
    printed: Callable[..., tuple[int, str, str]], output: Path
) -> None:
    code, out, errors = printed(output, "--json")
    runs = json.loads(out)
    assert (code, errors) == (0, "")
    assert [run["run"] for run in runs] == ["b-20261126-130000", "a-20261126-120000"]
    assert [run["settings"] for run in runs] == [{"training.epochs": 2}, {"training.epochs": 3}]


def test_json_is_strict_where_a_setting_or_an_interval_is_not_finite(
    printed: Callable[..., tuple[int, str, str]], output: Path
) -> None:
    path = output / "a-20261126-120000"
    (path / "training_options.json").write_text('{"run": {"training": {"epochs": 3, "x": NaN, "y": [1, -Infinity]}}}')
    (path / "evaluation").mkdir()
    metric = '{"value": 0.5, "low": NaN, "high": 1e999}'
    (path / "evaluation" / "evaluation.json").write_text(
        f'{{"main_metric": "accuracy", "metrics": {{"accuracy": {metric}}}}}'
    )
    _, out, _ = printed(output, "--json")
    run = json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))[1]
    assert (run["settings"]["training.x"], run["settings"]["training.y"]) == (None, [1, None])
    assert run["interval"] == [None, None]


@pytest.mark.parametrize(("order", "names"), [("run", "ab"), ("-run", "ba"), ("-training.epochs", "ab")])
def test_runs_are_sorted_by_a_name_and_with_a_minus_in_descending_order(
    printed: Callable[..., tuple[int, str, str]], output: Path, order: str, names: str
) -> None:
    _, out, _ = printed(output, "--sort", order)
    header, *rows = out.splitlines()
    assert header.split() == ["run", "started", "epochs", "state", "best", "training.epochs"]
    assert "".join(row[0] for row in rows) == names


@pytest.mark.parametrize("arguments", [["missing"], ["missing", "--json"]])
def test_a_missing_folder_prints_one_line_to_standard_error_and_exits_with_2(
    printed: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[str]
) -> None:
    code, out, errors = printed(tmp_path / arguments[0], *arguments[1:])
    assert (code, out) == (2, "")
    assert errors.startswith("Error: There is no folder ")
    assert errors.count("\n") == 1
