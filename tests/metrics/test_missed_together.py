from __future__ import annotations

import numpy as np
import pytest

from model_trainer.metrics.missed_together import missed_together
from model_trainer.metrics.tag_labels import TagLabels


def test_pairs_of_missed_tags_match_plain_numpy() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((80, 6)) < 0.5).astype(np.float32)
    targets[random.random(targets.shape) < 0.1] = np.nan
    predicted = random.random((80, 6)) < 0.4 + 0.5 * random.random((80, 1))  # some images are hard
    present = TagLabels.of_dense(targets).entries().present
    pairs = missed_together(present, predicted[present.rows, present.tags], 80, 6)
    has, missed = targets == 1, (targets == 1) & ~predicted
    expected = {}
    for a in range(6):
        for b in range(a + 1, 6):
            both, independent = (missed[:, a] & missed[:, b]).sum(), (has[:, a] & has[:, b]).sum()
            independent = independent * missed[:, a].sum() / has[:, a].sum() * missed[:, b].sum() / has[:, b].sum()
            if both >= 2 and both > independent:
                expected[a, b] = (both, pytest.approx(independent))
    assert len(expected) > 3
    assert {pair.tags: (pair.num_images, pair.expected) for pair in pairs} == expected
    surplus = [pair.num_images - pair.expected for pair in pairs]
    assert surplus == sorted(surplus, reverse=True)


def test_among_many_tags_only_those_missed_most_often_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_trainer.metrics.missed_together._MAX_TAGS", 2)
    targets = np.ones((8, 4), np.float32)
    predicted = np.ones((8, 4), bool)
    predicted[:4, [1, 3]] = False
    predicted[:2, [0, 2]] = False
    present = TagLabels.of_dense(targets).entries().present
    pairs = missed_together(present, predicted[present.rows, present.tags], 8, 4)
    assert [(pair.tags, pair.num_images, pair.expected) for pair in pairs] == [((1, 3), 4, 2.0)]


def test_without_a_tag_there_is_no_pair() -> None:
    present = TagLabels.of_dense(np.zeros((3, 2), np.float32)).entries().present
    assert missed_together(present, np.zeros(0, bool), 3, 2) == []
