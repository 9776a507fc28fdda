"""docs/from-fit.md: the `fit` script trains, and script and `Run` have the same settings."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from model_trainer import Cosine

PAGE = Path(__file__).parents[2] / "docs" / "from-fit.md"
SCRIPT = PAGE.read_text().split("```python\n")[1].split("```")[0]


def test_the_run_has_the_settings_of_the_fit_script(session_of: Callable[[Path], Any]) -> None:
    passed: dict[str, Any] = {}
    positional: dict[str, Any] = {}
    for node in ast.walk(ast.parse(SCRIPT)):
        if isinstance(node, ast.Call):
            passed |= {str(keyword.arg): keyword.value for keyword in node.keywords}
            positional |= {ast.unparse(node.func): node.args[0]} if node.args else {}
    run = session_of(PAGE).run_to()["run"]
    assert run.training.epochs == ast.literal_eval(passed["epochs"])
    assert run.training.batch_size == ast.literal_eval(passed["batch_size"])
    assert run.spec.target_size == ast.literal_eval(passed["input_shape"])
    assert run.network.pooling == ast.literal_eval(passed["pooling"])
    assert run.callbacks[0].patience == ast.literal_eval(passed["patience"])
    weights = eval(ast.unparse(passed["class_weight"]))
    assert [weight for weight in weights.values() if weight != 1] == list(run.task.class_weights.values())
    assert run.spec.resize == ("crop" if ast.literal_eval(passed["crop_to_aspect_ratio"]) else "squash")
    assert run.training.learning_rate == ast.literal_eval(positional["keras.optimizers.schedules.CosineDecay"])
    assert run.training.precision == ast.literal_eval(positional["keras.mixed_precision.set_global_policy"])
    assert run.network.dropout_rate == ast.literal_eval(positional["keras.layers.Dropout"])
    assert run.training.seed == ast.literal_eval(positional["keras.utils.set_random_seed"])
    flip, zoom = run.augment
    assert (flip.horizontal, flip.vertical) == (True, False)
    assert positional["keras.layers.RandomFlip"].value == "horizontal"
    assert zoom.factor == ast.literal_eval(positional["keras.layers.RandomZoom"])
    assert run.training.schedule == Cosine()
    assert ast.unparse(passed["decay_steps"]) == f"{run.training.epochs} * len(sets['train'])"


@pytest.fixture
def restored_policy() -> Iterator[None]:
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
@pytest.mark.usefixtures("restored_policy")
def test_the_fit_script_trains(colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = SCRIPT
    for old, new in {
        'f"data/{name}"': f'f"{colors}/{{name}}"',
        "(224, 224": "(32, 32",
        'weights="imagenet"': "weights=None",
        "batch_size=64": "batch_size=6",  # a last batch of 3: on Intel oneDNN fails for a replica without images
        "epochs=20": "epochs=1",
        "Dense(10,": "Dense(3,",
        "range(1, 10)": "range(1, 3)",
        "MirroredStrategy()": 'MirroredStrategy(["CPU:0", "CPU:1"])',
    }.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Keras and TensorFlow about the plain Keras script
        exec(code, names)
    assert len(names["model"].history.history["val_accuracy"]) == 1
    assert (tmp_path / "best.keras").is_file()
