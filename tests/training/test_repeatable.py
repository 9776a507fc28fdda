"""The same run twice: the same images in the same order, and with `deterministic=True` the same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_trainer import Adam, CutMix, RandomFlip, RandomResizedCrop, Run, load_model
from model_trainer.training.prepare import prepare
from model_trainer.training.train import train_model

MakeRun = Callable[..., Run]


def declare(make_run: MakeRun, *, deterministic: bool) -> Run:
    return make_run(
        augment=(RandomResizedCrop(), RandomFlip(), CutMix()),
        network__dropout_rate=0.5,
        spec__kwargs={"batch_normalization": True},
        training__optimizer=Adam(),
        training__epochs=2,
        training__batch_size=5,  # batches of one size, so that a run compiles one step
        training__deterministic=deterministic,
    )


def test_a_deterministic_run_gives_the_same_bits_twice(make_run: MakeRun) -> None:
    first, second = (train_model(declare(make_run, deterministic=True)) for _ in range(2))
    for left, right in zip(first.history, second.history, strict=True):
        assert {**left, "seconds": 0} == {**right, "seconds": 0}
    for mine, yours in zip(load_model(first.path).model.weights, load_model(second.path).model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())


def test_another_seed_gives_other_weights_and_another_first_batch(make_run: MakeRun) -> None:
    run = declare(make_run, deterministic=True)
    prepared = [prepare(each) for each in (run, run.changed("training.seed", 1))]
    weights, other_weights = (each.plain.network.model.get_weights()[0] for each in prepared)
    assert not np.array_equal(weights, other_weights)
    batch, other_batch = (next(each.train_pipeline.training(2).as_numpy_iterator()) for each in prepared)
    assert not np.array_equal(batch[0], other_batch[0])


def test_images_and_their_order_are_reproducible_without_deterministic_too(make_run: MakeRun) -> None:
    runs = [declare(make_run, deterministic=deterministic) for deterministic in (False, False, True)]
    shown = [list(prepare(run).train_pipeline.training(2).as_numpy_iterator()) for run in runs]
    for batches in shown[1:]:
        for batch, expected in zip(batches, shown[0], strict=True):
            for column, same in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(column, same)
