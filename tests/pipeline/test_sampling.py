from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.pipeline.order import epoch_seeds, shuffled_index
from model_trainer.pipeline.sampling import (
    EachOnce,
    EffectiveNumber,
    Equiprobable,
    PowerOfCount,
    Sampling,
    make_sampler,
    quotas,
)
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows

LABELS = np.repeat([0, 1, 2], [70, 25, 5])
NAMES = [f"{number}.jpg" for number in range(100)]
EXAMPLES = Examples.of_files(NAMES, LABELS, ("cat", "dog", "eel"), "data")


def epochs_of(sampling: Sampling, examples: Examples = EXAMPLES, epochs: int = 1, seed: int = 0) -> np.ndarray:
    """`(epochs, num_examples)`: the example at each position of each epoch."""
    sample = make_sampler(examples, sampling, seed)
    assert sample is not None
    seeds = tf.constant(epoch_seeds(seed, epochs), tf.uint32)
    count = len(examples)

    def show(position: tf.Tensor) -> tf.Tensor:
        epoch, within = position // count, position % count
        return sample(epoch, shuffled_index(within, seeds[epoch], count))

    shown = tf.data.Dataset.range(epochs * count).map(show).batch(epochs * count).get_single_element()
    return shown.numpy().reshape(epochs, count)


def test_each_once_reads_no_labels() -> None:
    class Unreadable(Examples):
        def label_rows(self) -> LabelRows:
            raise AssertionError

    examples = Unreadable.of_files(NAMES, LABELS, ("cat", "dog", "eel"), "data")
    assert make_sampler(examples, EachOnce(), 0) is None


def test_equiprobable_sampling_shows_each_class_equally_often() -> None:
    counts = Counter(LABELS[epochs_of(Equiprobable())[0]].tolist())
    assert sorted(counts.values()) == [33, 33, 34]


def test_all_images_of_a_class_are_shown_before_one_is_repeated_even_across_epochs() -> None:
    shown = epochs_of(Equiprobable(), epochs=4).ravel()
    for label, many in ((0, 70), (1, 25), (2, 5)):
        counts = Counter(shown[LABELS[shown] == label].tolist())
        assert len(counts) == many
        assert max(counts.values()) - min(counts.values()) <= 1


def test_epochs_and_seeds_have_different_orders() -> None:
    first, second = epochs_of(Equiprobable(), epochs=2)
    assert (first != second).any()
    assert (epochs_of(Equiprobable(), seed=1)[0] != first).any()
    np.testing.assert_array_equal(epochs_of(Equiprobable())[0], first)


def test_classes_are_mixed_within_an_epoch() -> None:
    labels = LABELS[epochs_of(Equiprobable())[0]]
    assert all(set(quarter) == {0, 1, 2} for quarter in np.array_split(labels, 4))


def test_a_power_of_the_count_lies_between_equal_and_natural_frequencies() -> None:
    counts = np.bincount(LABELS[epochs_of(PowerOfCount(0.5))[0]])
    expected = np.sqrt([70, 25, 5]) / np.sqrt([70, 25, 5]).sum() * 100
    np.testing.assert_allclose(counts, expected, atol=1)


def test_a_power_of_1_shows_each_image_once() -> None:
    assert sorted(epochs_of(PowerOfCount(1.0))[0]) == list(range(100))


def test_the_effective_number_follows_the_formula_of_the_paper() -> None:
    beta = 0.9
    each = [(1 - beta) / (1 - beta**count) for count in (70, 25, 5)]  # the weight of one image
    fractions = np.array(each) * [70, 25, 5]
    counts = np.bincount(LABELS[epochs_of(EffectiveNumber(beta))[0]])
    np.testing.assert_allclose(counts, fractions / fractions.sum() * 100, atol=1)


def test_each_once_needs_no_sampler() -> None:
    assert make_sampler(EXAMPLES, EachOnce(), 0) is None


def test_each_tag_is_sampled_equally_and_so_are_images_without_tags() -> None:
    rows = LabelRows.of([[0]] * 6 + [[0, 1]] * 2 + [[]] * 4, None)
    tagged = Examples.of_files(NAMES[:12], rows, ("blue", "red"), "tags")
    shown = epochs_of(Equiprobable(), tagged, epochs=3).ravel()
    assert (shown >= 8).sum() == 12  # no tag: a third
    assert ((shown >= 6) & (shown < 8)).sum() >= 12  # red, and some of blue


@pytest.mark.parametrize(("fractions", "total", "expected"), [([1, 1, 1], 10, [4, 3, 3]), ([1, 0.0001], 3, [3, 0])])
def test_quotas_are_integers_that_add_up_to_the_total(fractions: list[float], total: int, expected: list[int]) -> None:
    assert quotas(np.array(fractions), total).tolist() == expected
