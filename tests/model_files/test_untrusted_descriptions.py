"""Descriptions in model files that name code or ask for too much memory: each is refused with the reason.

| hole | test |
| --- | --- |
| code by a dotted path, anywhere | `test_a_description_that_names_code_is_refused_and_nothing_is_run` |
| code of ours that writes files or trusts others | the same, `[our_code_that_writes]`, `[our_code_that_trusts]`, ... |
| arguments of Keras' that read files or run code | `[weights_from_elsewhere]`, `[activation_that_is_code]`, ... |
| a model of the author's own | `[own_model...]`, `[live_model...]`; `test_the_same_file_is_loaded_with_trust` |
| a loss that is code | `test_a_loss_that_is_code_is_ignored` |
| a network larger than the file | `test_a_network_larger_than_its_file_is_refused_before_it_takes_memory` |
| ... that Keras makes later | `test_a_refused_network_is_not_initialized_later` |
| NaN, huge numbers, deep nesting, invalid JSON | `test_a_description_that_is_not_plain_json_is_refused` |
| megabytes of description | `test_a_description_of_megabytes_is_refused_before_it_is_parsed` |
| values of wrong types | `test_a_value_of_the_wrong_type_is_named` |
| `model_spec.json` next to the file | `test_a_description_next_to_the_file_is_checked_as_strictly` |
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from model_trainer.errors import ModelFileError
from model_trainer.model_files import description as descriptions
from model_trainer.model_files.load import load_model
from model_trainer.user_code import Call

Describe = Callable[..., Path]
Within = Callable[[float], contextlib.AbstractContextManager[None]]

NETWORK: dict[str, Any] = {"type": "Network", "dropout_rate": 0.2}
TASK: dict[str, Any] = {"type": "Classification"}
VGG = "keras.applications.vgg16.VGG16"


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `payload` that leaves a marker when it is imported, and where the marker would lie."""
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w').close()\ndef run(*args, **options):\n    open({str(marker)!r}, 'w').close()\n"
    (tmp_path / "payload.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return marker


FOREIGN_CODE: dict[str, tuple[dict[str, Any], str]] = {
    "class": ({"class": "payload.run"}, "`class` names payload.run"),
    "class_by_an_older_name": ({"class": None, "klass": "payload.run"}, "klass"),
    "preprocessing": ({"preprocess_func": "payload.run"}, "`preprocess_func` names payload.run"),
    "own_model": (
        {"network": {"type": "OwnModel", "model": {"type": "payload.run"}}},
        "its network is a model of the author's own",
    ),
    "own_model_as_it_is_held": (
        {"network": {"type": "OwnModel", "model": {"path": "payload.run", "arguments": {}}}},
        "its network is a model of the author's own",
    ),
    "own_model_of_keras_with_a_file": (
        {"network": {"type": "OwnModel", "model": {"type": VGG, "weights": "other.h5"}}},
        "its network is a model of the author's own",
    ),
    "live_model": (
        {"network": {"type": "OwnModel", "model": {"type": "Live", "object": "payload.run"}}},
        r"a model of the author's own \(payload.run\)",
    ),
    "live_model_with_a_good_name": (
        {"network": {"type": "OwnModel", "model": {"type": "Live", "object": VGG}}},
        r"a model of the author's own \(keras.applications",
    ),
    "our_code_that_writes": (
        {"class": "model_trainer.storage.files.write_text", "kwargs": {"path": "marker", "text": "text"}},
        "`class` names model_trainer.storage.files.write_text, ",
    ),
    "our_code_that_trusts": (
        {"class": "model_trainer.model_files.load.load_model", "kwargs": {"path": "other.hdf5", "trust": True}},
        "`class` names model_trainer.model_files.load.load_model, ",
    ),
    "our_code_as_preprocessing": (
        {"preprocess_func": "model_trainer.api.train"},
        "`preprocess_func` names model_trainer.api.train",
    ),
    "keras_function_that_builds_no_network": (
        {"class": "keras.applications.vgg16.preprocess_input"},
        "which is not a network of keras.applications",
    ),
    "weights_from_elsewhere": (
        {"class": VGG, "kwargs": {"weights": "other.h5"}},
        "`kwargs` gives weights='other.h5' to keras.applications.vgg16.VGG16",
    ),
    "activation_that_is_code": (
        {"class": VGG, "kwargs": {"classifier_activation": {"module": "os", "class_name": "system"}}},
        "`kwargs` gives classifier_activation=",
    ),
    "input_that_is_anything": ({"class": VGG, "kwargs": {"input_tensor": [1]}}, "`kwargs` gives input_tensor="),
}


@pytest.mark.parametrize("hole", FOREIGN_CODE)
def test_a_description_that_names_code_is_refused_and_nothing_is_run(
    hole: str, describe: Describe, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(payload.parent)
    changes, reason = FOREIGN_CODE[hole]
    with pytest.raises(ModelFileError, match=reason) as refused:
        load_model(describe(**changes))
    assert not payload.exists()
    assert "trust" in str(refused.value) or "older name" in str(refused.value)


def test_the_same_file_is_loaded_with_trust(describe: Describe, payload: Path) -> None:
    (payload.parent / "payload_net.py").write_text("from model_trainer.testing import small_backbone as make\n")
    path = describe(**{"class": "payload_net.make"})
    with pytest.raises(ModelFileError, match="--trust"):
        load_model(path)
    assert load_model(path, trust=True).classes == ("blue", "green", "red")


def test_a_loss_that_is_code_is_ignored(describe: Describe, payload: Path) -> None:
    loaded = load_model(describe(task={**TASK, "loss": Call("payload.run").to_dict()}))
    assert not payload.exists()
    assert loaded.model.output_shape == (None, 3)


def test_a_loss_that_was_a_live_object_does_not_prevent_prediction(describe: Describe) -> None:
    loaded = load_model(describe(task={**TASK, "loss": {"type": "Live", "object": "keras.losses.Poisson"}}))
    assert loaded.probabilities(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 3)


TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "images": ({"target_size": [10**6, 10**6, 3]}, "`target_size` is .* fill the memory"),
    "hidden_layer": ({"network": {**NETWORK, "dense": [10**9]}}, "'head_dense_1' needs .*1000000000"),
    "many_hidden_layers": ({"network": {**NETWORK, "dense": [1] * 100_000}}, "more than 64 layers or outputs"),
    "many_outputs": (
        {"task": {**TASK, "outputs": [{"name": f"o{number}"} for number in range(1000)]}},
        "more than 64 layers or outputs",
    ),
    "classes": ({"classes": ["c"] * 10**6}, r"layer 'logits' needs \[\(8, 1000000\)"),
    "wide_network": (
        {"class": "keras.applications.mobilenet.MobileNet", "target_size": [32, 32, 3], "kwargs": {"alpha": 900}},
        "layer 'conv1' needs .*28800",
    ),
    "too_wide_a_network": ({"kwargs": {"alpha": 1e9}}, "`kwargs` gives alpha=1000000000.0"),
    "flattened_images": (
        {"target_size": [2048, 2048, 3], "network": {**NETWORK, "pooling": "flatten", "dense": [100_000]}},
        "'head_dense_1' needs .*2097152",
    ),
    "another_network": ({"class": "keras.applications.vgg19.VGG19", "target_size": [224, 224, 3]}, "needs"),
}


@pytest.mark.long
@pytest.mark.parametrize("size", TOO_LARGE)
def test_a_network_larger_than_its_file_is_refused_before_it_takes_memory(
    size: str, describe: Describe, monkeypatch: pytest.MonkeyPatch, within: Within
) -> None:
    changes, reason = TOO_LARGE[size]
    path = describe(**changes)
    made: list[tuple[int, ...]] = []

    def count(variable: keras.Variable, *args: object) -> None:
        made.append(tuple(variable.shape))

    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", count)
    with within(200e6), pytest.raises(ModelFileError, match=reason):
        load_model(path)
    assert made == []  # no variable got values


def test_a_refused_network_is_not_initialized_later(describe: Describe) -> None:
    with pytest.raises(ModelFileError, match="head_dense_1"):
        load_model(describe(network={**NETWORK, "dense": [10**12]}))
    # Keras initializes variables that were left without values at the end of the next such scope.
    with keras.StatelessScope():
        pass
    assert keras.layers.Dense(2)(np.zeros((1, 2), np.float32)).shape == (1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is damaged or not JSON"),
        ("[]", "should hold a JSON object, got a list"),
        ('"text"', "should hold a JSON object, got a str"),
        ('{"target_size": [NaN, 16, 3]}', "NaN is not a JSON number"),
        ('{"target_size": [Infinity, 16, 3]}', "Infinity is not a JSON number"),
        ('{"target_size": [1e999, 16, 3]}', "1e999 is too large"),
        ('{"target_size": [' + "9" * 5000 + ", 16, 3]}", "is beyond 2"),
        ('{"a":' * 50 + "1" + "}" * 50, "is nested deeper than 32 levels"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"network": {"type": []}}', "has a `type` that should be a string, got a list"),
    ],
)
def test_a_description_that_is_not_plain_json_is_refused(describe: Describe, text: str, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        load_model(describe(text))


def test_a_description_of_megabytes_is_refused_before_it_is_parsed(
    describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = describe(name="n" * descriptions.MAX_BYTES)
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(ModelFileError, match="longer than 8,388,608 characters"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": []}, "`network` should be"),
        ({"network": "VGG16"}, "`network` should be one of"),
        ({"network": None}, "`network` should be one of"),
        ({"network": {"type": "OwnModel", "model": []}}, "should be"),
        ({"network": {**NETWORK, "dense": [-1]}}, "."),
        ({"network": {**NETWORK, "dense": "many"}}, "`network.dense` should be"),
        ({"task": 3}, "`task` should be one of"),
        ({"task": {"type": "os.system"}}, "`task` should be one of"),
        ({"task": {**TASK, "outputs": [{"name": "a/b"}]}}, "."),
        ({"classes": 3}, "`classes` should be"),
        ({"classes": []}, "`classes` should"),
        ({"classes": [1, 2, 3]}, "`classes.0` should be"),
        ({"thresholds": [0.5]}, "`thresholds` should have one value for each of 3 classes, got 1"),
        ({"class": 3}, "`class` should be"),
        ({"class": None}, "`spec.class` is missing"),
        ({"kwargs": []}, "`kwargs` should be"),
        ({"kwargs": {"alpha": "x" * 1000}}, r"`kwargs` gives alpha='x+\.\.\. to"),
        ({"target_size": [16, 16]}, "`target_size` should be three"),
        ({"target_size": [2, 2, 3], "class": VGG}, "at least 32 x 32"),
        ({"preprocess_func": []}, "`preprocess_func` should be"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(describe: Describe, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason) as refused:
        load_model(describe(**changes))
    assert "model.hdf5" in str(refused.value)


def test_a_description_next_to_the_file_is_checked_as_strictly(model_file: Path, describe: Describe) -> None:
    weights = model_file.with_name("plain.weights.h5")
    load_model(model_file).model.save_weights(weights)
    description = weights.with_name("model_spec.json")
    description.write_text('{"target_size": NaN}')
    with pytest.raises(ModelFileError, match="model_spec.json is damaged or not JSON: NaN"):
        load_model(weights)
    description.write_text(json.dumps({"class": "os.system", "target_size": [16, 16, 3]}))
    with pytest.raises(ModelFileError, match="`class` names os.system.*--trust"):
        load_model(weights)
