from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from model_trainer.errors import ModelFileError
from model_trainer.training.checkpoints.stateful import Attribute, Variables


def variables(*values: list[float], prefix: str = "v") -> list[tuple[str, keras.Variable]]:
    return [(f"{prefix}{number}", keras.Variable(value)) for number, value in enumerate(values)]


def test_variables_are_matched_by_position_whatever_their_names() -> None:
    old, new = variables([1.0, 2.0], [3.0]), variables([0.0, 0.0], [0.0], prefix="other")
    Variables("network", lambda: new).set_state(Variables("network", lambda: old).get_state())
    assert [each.numpy().tolist() for _, each in new] == [[1.0, 2.0], [3.0]]


def test_a_state_does_not_change_when_training_continues() -> None:
    named_variables = variables([1.0])
    state = Variables("network", lambda: named_variables).get_state()
    named_variables[0][1].assign([5.0])
    assert state["0/v0"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "optimizer/0/v0 is missing"),
        ({"0/v0": np.zeros(3, np.float32)}, r"optimizer/0/v0 should have shape \(2,\), got \(3,\)"),
    ],
)
def test_variables_that_do_not_fit_are_named(state: dict[str, np.ndarray], message: str) -> None:
    named_variables = variables([1.0, 2.0])
    with pytest.raises(ModelFileError, match=message):
        Variables("optimizer", lambda: named_variables).set_state(state)


def test_a_variable_that_older_checkpoints_lack_gets_a_default_value() -> None:
    named_variables = variables([1.0, 2.0], [3.0])
    stateful = Variables(
        "average", lambda: named_variables, lambda number: np.full(1, 7.0, np.float32) if number == 1 else None
    )
    stateful.set_state({"0/v0": np.zeros(2, np.float32)})
    assert [each.numpy().tolist() for _, each in named_variables] == [[0.0, 0.0], [7.0]]


def test_an_attribute_is_saved_as_json_and_restored_with_its_type() -> None:
    owner = SimpleNamespace(skipped={3, 1})
    stateful = Attribute(owner, "skipped", sorted, set)
    state = stateful.get_state()
    assert state == [1, 3]
    owner.skipped = set()
    stateful.set_state(state)
    assert owner.skipped == {1, 3}
