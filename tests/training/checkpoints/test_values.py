from __future__ import annotations

import json

import numpy as np

from model_trainer.training.checkpoints.values import pack, unpack


def test_a_numpy_float64_is_restored_as_a_float() -> None:
    arrays: dict[str, np.ndarray] = {}
    packed = pack([{"mine": np.float64(0.1)}], "history", arrays)
    assert json.dumps(unpack(packed, arrays)) == '[{"mine": 0.1}]'
    assert not arrays


def test_arrays_and_other_numpy_numbers_are_restored_as_they_were() -> None:
    arrays: dict[str, np.ndarray] = {}
    value = {"waits": np.int64(3), "weights": np.arange(3.0), "names": ["a"], "none": None}
    restored = unpack(json.loads(json.dumps(pack(value, "callbacks/0", arrays))), arrays)
    assert (restored["waits"], restored["waits"].dtype) == (3, np.int64)
    assert restored["weights"].tolist() == [0.0, 1.0, 2.0]
    assert (restored["names"], restored["none"]) == (["a"], None)
