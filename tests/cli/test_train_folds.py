"""`model-trainer train RUN --folds N`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from typer.testing import CliRunner

from model_trainer import Run, api
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError
from model_trainer.evaluation.folds import FoldsResult


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(
        "from model_trainer import ImageFolder, ModelSpec, Run\n"
        "run = Run(spec=ModelSpec.named('mobilenet_v1'), weights=None, train_data=ImageFolder('data'))\n"
    )
    return "small.py"


@pytest.fixture
def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replaces `train_folds`, which is tested elsewhere, and records the arguments of each call.

    A training of 4 folds ends as if stopped by SIGTERM.
    """
    calls: list[tuple[Any, ...]] = []

    def train_folds(run: Run, folds: int, **options: Any) -> FoldsResult:
        calls.append((folds, options))
        return FoldsResult(Path("output"), [], "SIGTERM" if folds == 4 else "")

    monkeypatch.setattr(api, "train_folds", train_folds)
    return calls


def test_folds_and_resume_are_passed_on(run_file: str, recorded_calls: list[tuple[Any, ...]]) -> None:
    assert CliRunner().invoke(app, ["train", run_file, "--folds", "5"]).exit_code == 0
    assert CliRunner().invoke(app, ["train", run_file, "--folds", "3", "--resume"]).exit_code == 0
    assert CliRunner().invoke(app, ["train", run_file, "--folds", "3", "--resume-from", "output/x"]).exit_code == 0
    assert recorded_calls == [
        (5, {"resume": False, "resume_from": None, "report": True}),
        (3, {"resume": True, "resume_from": None, "report": True}),
        (3, {"resume": False, "resume_from": "output/x", "report": True}),
    ]


def test_an_interrupted_k_fold_training_exits_with_75(run_file: str, recorded_calls: list[tuple[Any, ...]]) -> None:
    assert CliRunner().invoke(app, ["train", run_file, "--folds", "4"]).exit_code == 75


def test_a_single_fold_is_refused(run_file: str) -> None:
    result = CliRunner().invoke(app, ["train", run_file, "--folds", "1"])
    assert result.exit_code == 2
    assert "greater than or equal to 2" in click.unstyle(result.output)


@pytest.mark.parametrize("option", [("--hosts", "a:1,b:1"), ("--host-index", "0")])
def test_folds_on_several_machines_are_refused_with_the_reason(run_file: str, option: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["train", run_file, "--folds", "5", *option])
    assert isinstance(result.exception, ConfigError)
    assert "--folds trains the folds one after the other in one process" in str(result.exception)
