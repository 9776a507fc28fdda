"""A faster precision is used after a recorded check has passed, and only then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from model_trainer import Classification, ModelSpec
from model_trainer.errors import ConfigError
from model_trainer.inference.choose import with_engine
from model_trainer.inference.precision_check import FILE_NAME, PrecisionCheck, find_check, hash_of, record_check
from model_trainer.model_files.trained_model import TrainedModel


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model_max_acc.hdf5"
    path.write_bytes(b"weights")
    return path


def check(file: Path, **changes: object) -> PrecisionCheck:
    passed = PrecisionCheck(
        hash_of(file), "bfloat16", "keras", "data/val", 100, 0.995, 0.01, "accuracy", 0.9, 0.899, 1.7, 32, True
    )
    return replace(passed, **changes)


def test_a_check_that_passed_is_found(file: Path) -> None:
    record_check(file, check(file))
    assert find_check(file, "bfloat16") == check(file)


def test_without_a_check_the_error_names_the_command(file: Path) -> None:
    with pytest.raises(ConfigError, match=rf"there is none. Run: model-trainer evaluate {file} --precision bfloat16$"):
        find_check(file, "bfloat16")


def test_a_check_of_another_engine_does_not_count(file: Path) -> None:
    record_check(file, check(file))
    with pytest.raises(ConfigError, match="--precision bfloat16 --engine openvino$"):
        find_check(file, "bfloat16", "openvino")


def test_a_failed_check_is_refused_with_its_numbers(file: Path) -> None:
    record_check(file, check(file, passed=False, same_labels=0.97))
    with pytest.raises(ConfigError, match=r"did not pass .* 97.00% of .* accuracy is 0.8990 instead of 0.90"):
        find_check(file, "bfloat16")


def test_a_new_model_file_needs_a_new_check(file: Path) -> None:
    record_check(file, check(file))
    file.write_bytes(b"other weights")
    with pytest.raises(ConfigError, match=f"is of an earlier {file.name}. Run: model-trainer evaluate"):
        find_check(file, "bfloat16")


def test_a_check_replaces_the_one_of_the_same_engine_only(file: Path) -> None:
    record_check(file, check(file, passed=False))
    record_check(file, check(file, engine="openvino", speed=3.0))
    record_check(file, check(file))
    assert find_check(file, "bfloat16", "keras").passed
    assert find_check(file, "bfloat16").engine == "openvino"  # the faster one


def test_checks_of_an_earlier_model_file_are_dropped(file: Path) -> None:
    record_check(file, check(file))
    file.write_bytes(b"other weights")
    record_check(file, check(file, engine="openvino"))
    assert len(json.loads(file.with_name(FILE_NAME).read_text())[file.name]) == 1


def test_each_model_file_has_its_own_check(file: Path) -> None:
    other = file.with_name("final_model.hdf5")
    other.write_bytes(b"others")
    record_check(file, check(file))
    record_check(other, check(other, passed=False))
    assert find_check(file, "bfloat16").passed


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"model_max_acc.hdf5": [{"passed": true}, null]}'])
def test_a_damaged_record_does_not_count_as_a_check(file: Path, content: str) -> None:
    file.with_name(FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match="there is none"):
        find_check(file, "bfloat16")


@pytest.mark.parametrize("change", [{"passed": "no"}, {"same_labels": "99 %"}, {"before": None}])
def test_a_check_with_values_of_wrong_types_does_not_count(file: Path, change: dict[str, object]) -> None:
    path = record_check(file, check(file))
    stored = json.loads(Path(path).read_text())
    stored[file.name][0].update(change)
    file.with_name(FILE_NAME).write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="there is none"):
        find_check(file, "bfloat16")


@pytest.mark.long
def test_with_engine_computes_in_the_precision_that_passed(file: Path) -> None:
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(2, activation="softmax"))
    trained = TrainedModel(network, ModelSpec(target_size=[8, 8, 3]), Classification(), ("a", "b"), file)
    with pytest.raises(ConfigError, match="`precision` bfloat16 needs a passed check"):
        with_engine(trained, precision="bfloat16")
    record_check(file, check(file))
    engine = with_engine(trained, precision="bfloat16").engine
    assert engine is not None
    assert (engine.name, engine.precision) == ("keras", "bfloat16")
