"""Commands accept a run in an object store as their argument."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from model_trainer import Run
from model_trainer.cli.overrides import load_run
from model_trainer.diagnosis.data.splits import run_file_of
from model_trainer.errors import DataError
from model_trainer.storage import files

pytestmark = pytest.mark.long


def test_training_options_in_a_store_declare_a_run(bucket: str, make_run: Callable[..., Run]) -> None:
    run = make_run()
    options = f"{bucket}/output/a run/training_options.json"
    files.write_text(options, json.dumps({"run": run.to_dict()}))
    assert load_run(options, True).to_dict() == run.to_dict()
    assert run_file_of(f"{bucket}/output/a run") == options
    assert run_file_of(f"{bucket}/output") is None


def test_a_run_file_with_code_in_a_store_is_refused(bucket: str) -> None:
    files.write_text(f"{bucket}/run.py", "run = 1 / 0")
    with pytest.raises(DataError, match="is Python code in a store. Copy it to this machine"):
        load_run(f"{bucket}/run.py", True)
