"""Crops, tags, mixed images and images that are not single files, in batches."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_trainer import CutMix, Equiprobable, MixUp, ModelSpec, RandomResizedCrop
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.pipeline.shard import BatchShard
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import ByteRanges
from model_trainer.sources.label_rows import LabelRows

# Batches are mixed and repeated after images are read; `whole_pipeline` is for tests of reading itself.
pytestmark = pytest.mark.usefixtures("short_pipeline")
whole_pipeline = pytest.mark.usefixtures("whole_pipeline")

SPEC = ModelSpec(target_size=[8, 8, 3], resize="squash")
CLASSES = ("cat", "dog", "eel")
RANDOM = np.random.default_rng(0)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def make_pipeline(examples: Examples, **options: object) -> Pipeline:
    bad_images = BadImages(10, 0.01, len(examples))
    return Pipeline(**{"examples": examples, "spec": SPEC, "batch_size": 4, "bad_images": bad_images, **options})


def batches(pipeline: Pipeline, epochs: int = 0) -> list[tuple[np.ndarray, ...]]:
    return list((pipeline.training(epochs) if epochs else pipeline.validation()).as_numpy_iterator())


@whole_pipeline
@pytest.mark.parametrize("suffix", ["png", "bmp"])  # the fast path and Pillow's
def test_the_crop_of_an_example_is_what_the_model_sees(tmp_path: Path, suffix: str) -> None:
    pixels = picture()
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    crops = np.array([[3, 5, 8, 8], [0, 0, 0, 0], [20, 28, 100, 100], [30, 0, 5, 5]], np.int32)
    examples = Examples.of_files([str(path)] * 4, np.zeros(4), CLASSES, "crops", crops=crops)
    pipeline = make_pipeline(examples)
    ((images, _, weights),) = batches(pipeline)
    np.testing.assert_array_equal(images[0], pixels[3:11, 5:13])
    corner = Image.fromarray(pixels[20:24, 28:32]).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.abs(images[2].astype(int) - np.asarray(corner)).max() <= 1  # what lies inside
    assert weights.tolist() == [1, 1, 1, 0]
    assert pipeline.bad_images.reasons == {str(path): "does not contain its crop [0, 30, 5, 5]"}


@whole_pipeline
def test_a_random_crop_stays_inside_the_crop_of_the_example(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:20, 20:36] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crops = np.array([[10, 20, 10, 16]] * 8, np.int32)
    examples = Examples.of_files([str(tmp_path / "a.png")] * 8, np.zeros(8), CLASSES, "crops", crops=crops)
    for images, _, _ in batches(make_pipeline(examples, augment=(RandomResizedCrop(area=(0.1, 0.5)),)), epochs=2):
        assert (images == 200).all()


@whole_pipeline
def test_tags_are_rows_with_nan_for_unknown_ones(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    table = np.array([[1, 0, 0], [0, 0, 0], [1, np.nan, 1], [0, 0.25, 0], [0, 0, 1]], np.float32)
    examples = Examples.of_files([str(tmp_path / "a.png")] * 5, LabelRows.of_dense(table), CLASSES, "tags")
    all_labels = np.concatenate([labels for _, labels, _ in batches(make_pipeline(examples))])
    np.testing.assert_array_equal(all_labels, table)


@whole_pipeline
def test_images_in_ranges_of_one_file_equal_those_of_single_files(tmp_path: Path) -> None:
    encoded, paths = [], []
    for number, suffix in enumerate(["png", "jpeg", "gif", "png"]):
        stream = io.BytesIO()
        Image.fromarray(picture()).save(stream, suffix)
        encoded.append(stream.getvalue() if number != 3 else b"damaged")
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(encoded[-1])
    (tmp_path / "all.bin").write_bytes(b"".join(encoded))
    sizes = np.array([len(each) for each in encoded])
    ranges = ByteRanges([str(tmp_path / "all.bin")], np.zeros(4, np.int32), np.cumsum(sizes) - sizes, sizes)
    of_ranges = make_pipeline(Examples.of_images(ranges, np.arange(4) % 3, CLASSES, "all.bin"))
    of_files = make_pipeline(Examples.of_files(map(str, paths), np.arange(4) % 3, CLASSES, "files"))
    for (got, labels, weights), (want, _, _) in zip(batches(of_ranges), batches(of_files), strict=True):
        np.testing.assert_array_equal(got, want)
        assert labels.tolist() == [0, 1, 2, 0]
        assert weights.tolist() == [1, 1, 1, 0]
    assert of_ranges.bad_images.reasons == {f"{tmp_path}/all.bin#3": "is not an image"}


@pytest.fixture
def uniform(tmp_path: Path) -> Examples:
    """Ten images of one color each, which determines the label."""
    for label in range(3):
        Image.new("RGB", (8, 8), (label * 100,) * 3).save(tmp_path / f"{label}.png")
    labels = np.arange(10) % 3
    return Examples.of_files([str(tmp_path / f"{label}.png") for label in labels], labels, CLASSES, "uniform")


def test_mixed_images_have_the_labels_of_both_by_their_fractions(uniform: Examples) -> None:
    mixed = 0
    for images, labels, _ in batches(make_pipeline(uniform, augment=(MixUp(alpha=1.0),)), epochs=2):
        np.testing.assert_allclose(images[:, 0, 0, 0], labels @ [0, 100, 200], atol=0.51)
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
        mixed += ((labels > 0.01) & (labels < 0.99)).any()
    assert mixed


@pytest.mark.parametrize("augment", [MixUp(alpha=1.0), CutMix(alpha=1.0)])
def test_mixing_does_not_depend_on_the_number_of_replicas(uniform: Examples, augment: object) -> None:
    alone = batches(make_pipeline(uniform, augment=(augment,)), epochs=1)
    shared = batches(make_pipeline(uniform, augment=(augment,), shard=BatchShard(3)), epochs=1)
    for step, batch in enumerate(alone):
        shards = shared[3 * step : 3 * step + 3]
        count = len(batch[0])
        for column, whole in enumerate(batch):
            np.testing.assert_array_equal(np.concatenate([shard[column] for shard in shards])[:count], whole)


def test_a_run_that_starts_at_a_later_step_mixes_the_same_images(uniform: Examples) -> None:
    pipeline = make_pipeline(uniform, augment=(MixUp(alpha=1.0),))
    whole = list(pipeline.training(2).as_numpy_iterator())
    later = list(pipeline.training(2, first_step=2).as_numpy_iterator())
    for got, want in zip(later, whole[2:], strict=True):
        np.testing.assert_array_equal(got[0], want[0])


def test_sampling_decides_which_examples_an_epoch_shows(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    labels = np.repeat([0, 1, 2], [20, 2, 2])
    examples = Examples.of_files([str(tmp_path / "a.png")] * 24, labels, CLASSES, "uneven")
    seen = np.concatenate(
        [labels for _, labels, _ in batches(make_pipeline(examples, sampling=Equiprobable()), epochs=1)]
    )
    assert np.bincount(seen).tolist() == [8, 8, 8]


def assert_same(actual: list[tuple[np.ndarray, ...]], expected: list[tuple[np.ndarray, ...]]) -> None:
    assert len(actual) == len(expected)
    for batch, other in zip(actual, expected, strict=True):
        for column, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(column, same)


@pytest.fixture
def seven(tmp_path: Path) -> Examples:
    """Seven images, the fifth of which cannot be read."""
    paths = [str(tmp_path / f"{number}.png") for number in range(7)]
    for path in paths:
        Image.fromarray(picture()).save(path)
    Path(paths[4]).write_bytes(b"no image")
    return Examples.of_files(paths, np.arange(7) % 3, CLASSES, "seven")


@whole_pipeline
@pytest.mark.parametrize("devices", [1, 2])
def test_several_passes_of_validation_repeat_one_pass(seven: Examples, devices: int) -> None:
    pipeline = make_pipeline(seven, shard=BatchShard(devices))
    once = list(pipeline.validation().as_numpy_iterator())
    assert_same(list(pipeline.validation(passes=3).as_numpy_iterator()), once * 3)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_beginnings_of_epochs_are_the_batches_that_training_gets(seven: Examples, devices: int) -> None:
    pipeline = make_pipeline(
        seven, shard=BatchShard(devices), augment=(RandomResizedCrop(), MixUp()), batch_size=2
    )  # 4 steps
    trained = list(pipeline.training(epochs=5).as_numpy_iterator())
    steps = [trained[number : number + devices] for number in range(0, len(trained), devices)]
    # After the second, third and fourth epoch of four: two steps of the next one, after the last one all.
    expected = [*steps[8:10], *steps[12:14], *steps[16:20]]
    beginnings = list(pipeline.beginnings(epochs=4, first_epoch=1, count=2, last_count=4).as_numpy_iterator())
    assert_same(beginnings, [batch for step in expected for batch in step])
