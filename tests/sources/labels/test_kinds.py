from __future__ import annotations

import numpy as np
import pytest

from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import Labels, count_classes, kind_of, remap_labels, rows_of, take_labels

KINDS = {
    "single": np.array([1, 0, 1], np.int32),
    "tags": LabelRows.of([[1], [0], [1]]),
    "probabilities": LabelRows.of([[1], [0], [1]], exclusive=True),
}


@pytest.mark.parametrize(("kind", "labels"), KINDS.items())
def test_all_kinds_of_labels_are_selected_counted_and_remapped_alike(kind: str, labels: Labels) -> None:
    assert kind_of(labels) == kind
    assert count_classes(labels, 3).tolist() == [1, 2, 0]
    taken = take_labels(labels, np.array([2, 1]))
    assert kind_of(taken) == kind
    assert rows_of(taken).dense(2).tolist() == [[0, 1], [1, 0]]
    assert rows_of(remap_labels(labels, np.array([2, 0]))).dense(3).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
