"""Which example is in which batch, for any batch size, number of devices and start of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_trainer import ImageFolder, MixUp, ModelSpec, RandomFlip, RandomResizedCrop
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline, num_steps
from model_trainer.pipeline.image import read_image
from model_trainer.pipeline.shard import BatchShard
from model_trainer.sources.examples import Examples

# Which process reads which image is decided before one is read; `whole_pipeline` is for tests of the pixels, too.
pytestmark = pytest.mark.usefixtures("short_pipeline")
whole_pipeline = pytest.mark.usefixtures("whole_pipeline")

SPEC = ModelSpec(target_size=[16, 16, 3])

Batches = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture
def examples(colors: Path) -> Examples:
    return ImageFolder(colors / "train").read()


def make(examples: Examples, **options: object) -> Pipeline:
    bad_images = BadImages(10, 0.01, len(examples))
    return Pipeline(**{"examples": examples, "spec": SPEC, "batch_size": 4, "bad_images": bad_images, **options})


def training(pipeline: Pipeline, epochs: int = 1, first_step: int = 0) -> Batches:
    return list(pipeline.training(epochs, first_step).as_numpy_iterator())


@whole_pipeline
def test_each_epoch_has_each_example_once_and_batches_do_not_cross_epochs(examples: Examples) -> None:
    batches = training(make(examples), epochs=3)
    assert [len(images) for images, _, _ in batches] == [4, 4, 4, 3] * 3
    whole = sorted(image.tobytes() for image, _, _ in training(make(examples, batch_size=1)))
    for epoch in range(3):
        seen = [image.tobytes() for images, _, _ in batches[4 * epoch : 4 * epoch + 4] for image in images]
        assert sorted(seen) == whole
        assert len(set(seen)) == 15


def test_labels_stay_with_their_images(examples: Examples) -> None:
    for images, labels, weights in training(make(examples)):
        # The classes are blue, green and red, so the strongest channel determines the label.
        strongest = images.mean(axis=(1, 2)).argmax(axis=1)
        np.testing.assert_array_equal(2 - strongest, labels)
        assert (weights == 1).all()


def test_the_order_differs_between_epochs_and_seeds(examples: Examples) -> None:
    orders = set()
    for seed, epochs in ((0, 2), (1, 1)):
        batches = training(make(examples, seed=seed), epochs)
        for epoch in range(epochs):
            epoch_batches = batches[4 * epoch : 4 * epoch + 4]
            orders.add(tuple(int(label) for _, labels, _ in epoch_batches for label in labels))
    assert len(orders) == 3


def assert_equal_batches(left: Batches, right: Batches) -> None:
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


AUGMENT = (RandomResizedCrop(), RandomFlip(vertical=True))


def test_the_same_seed_gives_the_same_bytes(examples: Examples) -> None:
    assert_equal_batches(training(make(examples, augment=AUGMENT)), training(make(examples, augment=AUGMENT)))


@whole_pipeline
def test_a_run_that_starts_at_a_later_step_gets_the_batches_of_the_whole_run(examples: Examples) -> None:
    whole = training(make(examples, augment=AUGMENT), epochs=2)
    for first_step in (1, 6):
        assert_equal_batches(training(make(examples, augment=AUGMENT), 2, first_step), whole[first_step:])


def test_augmentation_does_not_depend_on_the_batch_size(examples: Examples) -> None:
    def images(batch_size: int) -> np.ndarray:
        batches = training(make(examples, augment=AUGMENT, batch_size=batch_size))
        return np.concatenate([images for images, _, _ in batches])

    np.testing.assert_array_equal(images(4), images(5))


def test_the_same_image_looks_different_in_another_epoch(examples: Examples) -> None:
    one = examples.take(np.array([0]))
    first, second = training(make(one, augment=AUGMENT, batch_size=1), epochs=2)
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("num_replicas", [2, 3, 4])
def test_each_batch_is_sharded_in_order_with_sizes_that_differ_by_at_most_one(
    examples: Examples, num_replicas: int
) -> None:
    whole = training(make(examples))
    shards = training(make(examples, shard=BatchShard(num_replicas)))
    assert len(shards) == num_replicas * len(whole)
    for number, (images, labels, weights) in enumerate(whole):
        mine = shards[num_replicas * number : num_replicas * (number + 1)]
        sizes = [len(shard[0]) for shard in mine]
        assert max(sizes) - min(sizes) <= 1
        count = len(images)
        np.testing.assert_array_equal(np.concatenate([shard[0] for shard in mine])[:count], images)
        np.testing.assert_array_equal(np.concatenate([shard[1] for shard in mine])[:count], labels)
        assert np.concatenate([shard[2] for shard in mine]).sum() == weights.sum()


def test_every_replica_gets_an_image(examples: Examples) -> None:
    shards = training(make(examples.take(np.arange(5)), shard=BatchShard(3)))  # the last batch has one image
    last = shards[-3:]
    assert [len(images) for images, _, _ in last] == [1, 1, 1]
    assert [float(weights[0]) for _, _, weights in last] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("augment", [(), (MixUp(alpha=1.0),)], ids=["alone", "mixed"])
def test_three_machines_of_two_devices_read_each_batch_together(examples: Examples, augment: tuple[MixUp, ...]) -> None:
    options = {"batch_size": 7, "augment": augment}  # 2, 1, 1, 1, 1, 1; the last batch has one image
    whole = training(make(examples, **options))
    per_machine = [training(make(examples, shard=BatchShard(6, first, 2), **options)) for first in (0, 2, 4)]
    assert [len(own) for own in per_machine] == [2 * len(whole)] * 3
    for number, batch in enumerate(whole):
        shards = [shard for own in per_machine for shard in own[2 * number : 2 * number + 2]]
        assert [len(shard[0]) for shard in shards] == ([2, 1, 1, 1, 1, 1] if len(batch[0]) == 7 else [1] * 6)
        for column, expected in enumerate(batch):
            np.testing.assert_array_equal(
                np.concatenate([shard[column] for shard in shards])[: len(expected)], expected
            )
        assert np.concatenate([shard[2] for shard in shards])[len(batch[0]) :].sum() == 0


@whole_pipeline
def test_a_machine_decodes_only_its_own_shard(examples: Examples, tmp_path: Path) -> None:
    # Unreadable images are reported by the process that reads them.
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for path in paths:
        path.write_bytes(b"none")
    broken = Examples.of_files([str(path) for path in paths], np.zeros(12, np.int64), ("a",), "broken")
    read = []
    for first in range(3):
        bad = BadImages(100, 1.0, 12)
        training(make(broken, batch_size=6, shard=BatchShard(3, first, 1), bad_images=bad))
        read.append(set(bad.reasons))
    assert [len(names) for names in read] == [4, 4, 4]
    assert set.union(*read) == {str(path) for path in paths}


def test_the_examples_of_a_step_are_known_without_reading_images(examples: Examples) -> None:
    pipeline = make(examples)
    labels = [labels for _, labels, _ in training(pipeline, epochs=2)]
    for step in (0, 3, 5):
        np.testing.assert_array_equal(examples.labels[pipeline.in_step(step, 2)], labels[step])


@whole_pipeline
@pytest.mark.parametrize(("batch_size", "num_replicas"), [(1, 1), (4, 1), (4, 2), (15, 2), (40, 2)])
def test_validation_sees_every_image_exactly_once(examples: Examples, batch_size: int, num_replicas: int) -> None:
    pipeline = make(examples, batch_size=batch_size, shard=BatchShard(num_replicas))
    batches = list(pipeline.validation().as_numpy_iterator())
    seen = [image for images, _, weights in batches for image in images[weights > 0]]
    expected = [read_image(path, SPEC) for path in examples.names()]
    np.testing.assert_array_equal(seen, expected)  # which are also the pixels that predict sees


@whole_pipeline
def test_an_unreadable_image_keeps_its_position_with_weight_0(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    folder = draw_folder(tmp_path / "train", 5)
    good = training(make(ImageFolder(folder).read()))
    (folder / "green" / "2.png").write_bytes(b"no longer an image")
    pipeline = make(ImageFolder(folder).read())
    batches = training(pipeline)
    changed = 0
    for (images, labels, weights), (good_images, good_labels, _) in zip(batches, good, strict=True):
        np.testing.assert_array_equal(labels, good_labels)
        np.testing.assert_array_equal(images[weights > 0], good_images[weights > 0])
        assert not images[weights == 0].any()
        changed += int((weights == 0).sum())
    assert changed == 1
    assert pipeline.bad_images.reasons == {str(folder / "green" / "2.png"): "is not an image"}


@whole_pipeline
def test_files_with_names_that_are_not_utf_8_are_read(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    folder = draw_folder(tmp_path / "train", 1)
    odd = bytes(folder / "red") + b"/\xff\xfe.png"
    try:
        with open(odd, "wb") as file:
            file.write((folder / "red" / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    pipeline = make(ImageFolder(folder).read(), batch_size=1)
    assert sum(weights.sum() for _, _, weights in training(pipeline)) == 4


def test_the_number_of_steps_includes_the_last_partial_batch() -> None:
    assert [num_steps(count, 4) for count in (1, 4, 5, 8)] == [1, 1, 2, 2]
