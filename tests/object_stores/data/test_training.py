"""Training on an object store has the same losses as on disk; errors of the store are not blamed on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import ImageFolder, ModelSpec, RandomFlip, Run, train
from model_trainer.errors import StorageError, UnavailableError
from model_trainer.pipeline import read, read_ahead
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.sources.examples import Examples
from model_trainer.sources.objects import Objects
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.storage import cached, files
from model_trainer.training.train import Result

Upload = Callable[[Path, str], None]

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("plain_graphs")]


def losses(result: Result) -> list[tuple[float, float]]:
    return [(row["loss"], row["val_loss"]) for row in result.history]


def test_losses_equal_those_of_training_on_disk(
    colors: Path, bucket: str, upload: Upload, make_run: Callable[..., Run]
) -> None:
    upload(colors, bucket)
    on_disk = train(make_run())
    on_store = train(
        make_run(train_data=ImageFolder(f"{bucket}/train"), val_data=ImageFolder(f"{bucket}/val"), name="store")
    )
    assert losses(on_store) == losses(on_disk)
    assert not on_store.bad_images
    assert cached.cache().usage()[0] == 24


@pytest.fixture
def few_ahead(monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]) -> None:
    """No cache, and few images are read ahead, so that a fault affects the images that follow."""
    configure(cache_bytes=0, retry_seconds=1.0)
    monkeypatch.setattr(read_ahead, "_MIN_AHEAD", 4)
    monkeypatch.setattr(read_ahead, "_MAX_AHEAD", 4)
    monkeypatch.setattr(read, "ANNOUNCED_TOGETHER", 2)


class ActAfterSecondEpoch(keras.callbacks.Callback):
    """Calls `action` at the end of the second epoch, once."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.action = action

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            self.action()
            self.action = lambda: None


@pytest.fixture
def stored(colors: Path, bucket: str, upload: Upload, few_ahead: None) -> Pipeline:
    """A pipeline of 15 images in the store."""
    upload(colors / "train", f"{bucket}/train")
    spec = ModelSpec(target_size=[16, 16, 3])
    return Pipeline(ImageFolder(f"{bucket}/train").read(), spec, 4, BadImages(15, 1.0, 15), augment=(RandomFlip(),))


@pytest.fixture
def stored_run(colors: Path, bucket: str, upload: Upload, make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run of ten epochs whose images are in the store."""
    upload(colors, bucket)
    data = {"train_data": ImageFolder(f"{bucket}/train"), "val_data": ImageFolder(f"{bucket}/val")}
    return partial(make_run, **data, name="store", training__epochs=10)


@pytest.mark.slow
@pytest.mark.usefixtures("few_ahead")
def test_a_run_that_ends_with_75_without_its_server_resumes_to_the_same_losses(
    stored_run: Callable[..., Run], make_run: Callable[..., Run], s3: Any
) -> None:
    run = stored_run(callbacks=(ActAfterSecondEpoch(s3.kill),))
    try:
        with pytest.raises(UnavailableError, match=r"s3://bucket-\d+/\w+/\w+/\d.png: .* does not answer") as raised:
            train(run)
    finally:
        if s3.process is None:
            s3.start()
    assert raised.value.exit_code == 75
    (folder,) = Path(run.output_dir).glob("store-*")
    assert not (folder / "bad_images.csv").exists()
    resumed = train(run, resume=True)
    assert not resumed.bad_images
    assert losses(resumed) == losses(train(make_run(training__epochs=10)))


def test_an_object_that_changes_or_disappears_during_the_run_is_a_bad_image(stored: Pipeline, bucket: str) -> None:
    batches = iter(stored.validation(passes=20))
    next(batches)
    files.write(f"{bucket}/train/red/0.png", files.read(f"{bucket}/train/red/1.png"))
    files.delete(f"{bucket}/train/red/2.png")
    num_rows = sum(len(batch.weights) for batch in batches)
    assert num_rows == 20 * 15 - 4
    assert stored.bad_images.reasons == {
        f"{bucket}/train/red/0.png": "could not be opened (the object has changed in the meantime)",
        f"{bucket}/train/red/2.png": "does not exist",
    }


def test_a_refused_request_ends_the_run_and_marks_no_image_as_bad(stored: Pipeline, bucket: str, s3: Any) -> None:
    batches = iter(stored.bad_images.checked(stored.validation(passes=50)))
    next(batches)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "another-made-up-one")
        for scheme in list(files._MOUNTED):
            patched.delitem(files._MOUNTED, scheme)
        with pytest.raises(StorageError, match="the secret key does not belong to the access key") as raised:
            list(batches)
    assert raised.value.exit_code == 2
    assert not stored.bad_images.reasons


@pytest.mark.parametrize("num_ahead", [1, 1024])
def test_batches_equal_those_on_disk_however_many_images_are_read_ahead(
    colors: Path, stored: Pipeline, monkeypatch: pytest.MonkeyPatch, num_ahead: int
) -> None:
    monkeypatch.setattr(read_ahead, "_MIN_AHEAD", num_ahead)
    monkeypatch.setattr(read_ahead, "_MAX_AHEAD", num_ahead)
    on_disk = replace(stored, examples=ImageFolder(colors / "train").read())
    for ours, theirs in zip(stored.training(3, 2), on_disk.training(3, 2), strict=True):
        for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["", "/../x.png", "/a\nb.png"])
def test_an_image_with_an_invalid_key_is_unreadable_and_the_others_are_read(
    stored: Pipeline, bucket: str, name: str
) -> None:
    names = [*stored.examples.names()[:3], f"{bucket}{name}"]
    objects = Objects(PackedStrings.of(names), etags=np.array([b'"1"'] * 4, "S40") if name else None)
    objects.etags[:3] = b""
    examples = Examples.of_images(objects, stored.examples.labels[:4], stored.examples.classes, "test")
    batches = list(replace(stored, examples=examples).validation())
    assert sum(np.count_nonzero(batch.weights) for batch in batches) == 3
    (reason,) = stored.bad_images.reasons.items()
    assert reason[0] == names[3]
    assert reason[1].startswith("could not be opened (")
