"""An untrusted `training_options.json`, as `evaluate` and `train` read it: no code that it names is executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_trainer import Run
from model_trainer.errors import ConfigError
from model_trainer.run.run import load_data

MakeRun = Callable[..., Run]


def payload(marker: Path) -> dict[str, Any]:
    """A function of Python's standard library that would write a file."""
    return {"path": "pydoc.pipepager", "arguments": {"text": "", "cmd": f"touch {marker}"}}


@pytest.fixture
def options(make_run: MakeRun, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    return tmp_path / "training_options.json", make_run().to_dict()


def test_a_filter_that_names_code_is_rejected_and_not_executed(
    options: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, run = options
    run["val_data"] = {"type": "Filtered", "source": run["val_data"], "where": payload(tmp_path / "marker")}
    path.write_text(json.dumps({"run": run}))
    for load in (Run.load, load_data):
        with pytest.raises(ConfigError, match="val_data.where.path` names the code 'pydoc.pipepager'.*--trust"):
            load(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("callbacks", [{"type": "os.system", "command": "true"}]),
        ("callbacks", [{"path": "os.system", "arguments": {"command": "true"}}]),
        ("task", {"type": "Classification", "loss": {"type": "shutil.rmtree", "path": "x"}}),
        ("spec", {"class": "os.system", "target_size": [8, 8, 3]}),
        ("spec", {"klass": "os.system", "target_size": [8, 8, 3]}),
        ("spec", {"class_": "os.system", "target_size": [8, 8, 3]}),
        ("spec", {"class": "VGG19", "preprocess_func": "os.system"}),
        ("spec", {"class": "model_trainer.storage.files.write_text", "target_size": [8, 8, 3]}),
        ("spec", {"class": "model_trainer.storage.local.os.system", "target_size": [8, 8, 3]}),
        ("network", {"type": "OwnModel", "model": "os.system"}),
    ],
)
def test_a_dotted_path_needs_trust_in_every_field(
    options: tuple[Path, dict[str, Any]], field: str, value: object
) -> None:
    path, run = options
    run[field] = value
    path.write_text(json.dumps({"run": run}))
    with pytest.raises(ConfigError, match=r"names the code .* Add --trust"):
        Run.load(path)
