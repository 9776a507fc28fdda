"""`model-trainer doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from model_trainer.cli.doctor import doctor


def called(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, list(arguments))


def test_a_data_set_without_faults_exits_with_0(colors: Path, tmp_path: Path) -> None:
    result = called(str(colors), "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Report: {tmp_path / 'doctor.html'}"


def test_a_fault_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    result = called(str(tmp_path / "data"), "--output", str(tmp_path))
    assert result.exit_code == 1
    assert json.loads((tmp_path / "doctor.json").read_text())["findings"][0]["id"] == "empty-class"


def test_the_data_of_a_run_file_is_examined(colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.py").write_text(
        "from model_trainer import ImageFolder, ModelSpec, Run\n"
        "run = Run(spec=ModelSpec.named('mobilenet_v1'),\n"
        f"    train_data=ImageFolder({str(colors / 'train')!r}), val_data=ImageFolder({str(colors / 'val')!r}))\n"
    )
    monkeypatch.chdir(tmp_path)
    result = called("run.py")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("doctor.json").read_text())["num_images"] == 24


def test_a_manifest_of_class_indices_is_examined_with_root_and_classes(colors: Path, tmp_path: Path) -> None:
    rows = [f"{name}/{file.name},{label}" for label, name in enumerate(("blue", "green", "red"))
            for file in sorted((colors / "train" / name).iterdir())]  # fmt: skip
    (tmp_path / "data.csv").write_text("\n".join(["filename,class_id", *rows]))
    options = ["--root", str(colors / "train"), "--classes", "blue,green,red", "--output", str(tmp_path)]
    result = called(str(tmp_path / "data.csv"), *options)
    assert result.exit_code == 0, result.output
    assert list(json.loads((tmp_path / "doctor.json").read_text())["classes"]["all"]) == ["blue", "green", "red"]
