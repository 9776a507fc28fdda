"""Training on an object store: the same losses as on disk, and errors of the store that are not those of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer import ImageFolder, Run, train
from model_trainer.storage import cached
from model_trainer.training.train import Result

Upload = Callable[[Path, str], None]

pytestmark = pytest.mark.usefixtures("plain_graphs")


def losses(result: Result) -> list[tuple[float, float]]:
    return [(row["loss"], row["val_loss"]) for row in result.history]


def test_losses_are_those_on_disk(colours: Path, bucket: str, upload: Upload, make_run: Callable[..., Run]) -> None:
    upload(colours, bucket)
    on_disk = train(make_run())
    on_store = train(
        make_run(train_data=ImageFolder(f"{bucket}/train"), val_data=ImageFolder(f"{bucket}/val"), name="store")
    )
    assert losses(on_store) == losses(on_disk)
    assert not on_store.bad_images
    assert cached.cache().usage()[0] == 24
