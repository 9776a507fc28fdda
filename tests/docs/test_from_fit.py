"""The two halves of docs/from-fit.md are the same training."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "from-fit.md"
SCRIPT = PAGE.read_text().split("```python\n")[1].split("```")[0]


def test_the_run_has_the_numbers_of_the_script(session_of: Callable[[Path], Any]) -> None:
    passed: dict[str, Any] = {}
    for node in ast.walk(ast.parse(SCRIPT)):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                passed[str(keyword.arg)] = keyword.value
    run = session_of(PAGE).run_to()["run"]
    assert run.training.epochs == ast.literal_eval(passed["epochs"])
    assert run.training.batch_size == ast.literal_eval(passed["batch_size"])
    assert run.spec.target_size == ast.literal_eval(passed["input_shape"])
    assert run.network.pooling == ast.literal_eval(passed["pooling"])
    assert run.callbacks[0].patience == ast.literal_eval(passed["patience"])
    assert f"CosineDecay({run.training.learning_rate:g}".replace("0.001", "1e-3") in SCRIPT
    assert f'set_global_policy("{run.training.precision}")' in SCRIPT


@pytest.fixture
def plain_policy() -> Iterator[None]:
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
@pytest.mark.usefixtures("plain_policy")
def test_the_script_trains(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = SCRIPT
    for old, new in {
        'f"data/{name}"': f'f"{colours}/{{name}}"',
        "(224, 224": "(32, 32",
        'weights="imagenet"': "weights=None",
        "batch_size=64": "batch_size=8",
        "epochs=20": "epochs=1",
        "Dense(10,": "Dense(3,",
        "range(10)": "range(3)",
        "MirroredStrategy()": 'MirroredStrategy(["CPU:0", "CPU:1"])',
    }.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Keras and TensorFlow warn of is theirs
        exec(code, names)
    assert len(names["model"].history.history["val_accuracy"]) == 1
    assert (tmp_path / "best.keras").is_file()
