"""A new model file is loaded while requests are answered."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_trainer.errors import ModelFileError
from model_trainer.model_files.load import find_model_file
from model_trainer.serving import reload
from model_trainer.serving.loading import state_of
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.reload import watch_model
from model_trainer.serving.service import Service
from model_trainer.specs import ModelSpec

pytestmark = pytest.mark.long

SECONDS = 60.0
OPTIONS = ServeOptions(max_batch_size=2, num_decoders=1, engine="keras")


@pytest.fixture
def watched(tmp_path: Path, pets: Path, pets_spec: ModelSpec) -> Iterator[Service]:
    """A service that watches a copy of the model."""
    copy = tmp_path / "model_max_acc.hdf5"
    copy.write_bytes(pets.read_bytes())
    service = Service(tmp_path, OPTIONS, spec=pets_spec, classes=("cat", "dog", "owl"))
    service.load()
    stop = watch_model(service, poll_seconds=0.02)
    yield service
    stop.set()
    service.close()


def test_a_new_model_answers_and_no_request_is_lost(
    watched: Service, save_pets: Callable[..., Path], encode: Callable[..., bytes], tmp_path: Path
) -> None:
    version = watched.model_version
    answered_by: list[object] = []

    async def client() -> None:
        while watched.model_version == version or answered_by[-1] is not watched.trained:
            answered_by.append((await watched.probabilities([encode()])).model)

    async def body() -> None:
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as clients:
            for _ in range(3):
                clients.create_task(client())
            await asyncio.to_thread(save_pets, tmp_path / "model_max_acc.hdf5", 2)

    asyncio.run(body())
    assert len(set(map(id, answered_by))) == 2
    assert watched.status == "ready"


def test_a_damaged_new_model_is_logged_once_and_the_old_one_answers(
    watched: Service, encode: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = watched.trained
    errors: list[str] = []
    monkeypatch.setattr(reload.logging, "error", lambda text, *values: errors.append(text % values))
    (tmp_path / "partial").write_bytes(b"no model")
    (tmp_path / "partial").rename(tmp_path / "model_max_acc.hdf5")

    async def body() -> None:
        async with asyncio.timeout(SECONDS):
            while not errors:
                await watched.probabilities([encode()])
            assert (await watched.probabilities([encode()])).model is old

    asyncio.run(body())
    assert len(errors) == 1
    assert errors[0].startswith("The new model cannot be loaded; the old one continues to answer: ")


def test_a_model_replaced_by_a_named_pipe_does_not_block(pets: Path, tmp_path: Path) -> None:
    path = tmp_path / "pets.h5"
    shutil.copy(pets, path)
    assert state_of(path)
    path.unlink()
    os.mkfifo(path)
    assert state_of(path) == ()
    with pytest.raises(ModelFileError, match="is neither a regular file nor a folder"):
        find_model_file(path)
