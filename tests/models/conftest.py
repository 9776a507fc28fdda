"""A small model file of ours, and one that says more than it should."""

from __future__ import annotations

import contextlib
import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network
from model_trainer.models.build import build_network
from model_trainer.models.files import ATTRIBUTE, save_model

SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
DESCRIPTION: dict[str, Any] = {
    "format": 1,
    **SPEC.to_dict(),
    "task": Classification().to_dict(),
    "network": Network().to_dict(),
    "classes": ["blue", "green", "red"],
    "thresholds": None,
}


@pytest.fixture(scope="session")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "model.hdf5"
    model = build_network(SPEC, Network(), Classification(), 3).model
    random = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random.normal(0, 1, variable.shape))
    save_model(model, path, DESCRIPTION)
    return path


@pytest.fixture
def model_file(_saved: Path, tmp_path: Path) -> Path:
    """A good file, to be spoilt."""
    return Path(shutil.copy(_saved, tmp_path / "model.hdf5"))


@pytest.fixture
def describe(model_file: Path) -> Callable[..., Path]:
    """Gives the file another description: changed keys, or a text as it is."""

    def change(text: str | None = None, **changes: object) -> Path:
        with h5py.File(model_file, "r+") as file:
            file.attrs[ATTRIBUTE] = json.dumps(DESCRIPTION | changes) if text is None else text
        return model_file

    return change


@pytest.fixture
def within() -> Callable[[float], contextlib.AbstractContextManager[None]]:
    """`with within(16e6):` fails if Python's objects and NumPy's arrays take more bytes than that meanwhile."""

    @contextlib.contextmanager
    def measure(most_bytes: float) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < most_bytes

    return measure
