"""Splits a source into training and validation data."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.source import Source

__all__ = ["Split"]


@final
class Split(Source):
    """The training or the validation split of another source; see `Source.split`.

    The split is stratified: each class is divided separately, except in data with several labels per image. If the
    source has groups, a group is never divided, and belongs to the class of its first image.
    """

    former_fields = {"part": "split"}

    source: Source
    val: float = Field(gt=0, lt=1)  # fraction of each class for validation
    split_name: Literal["train", "val"] = Field(alias="split")  # `split` is a method of every source
    seed: int = 0

    def read(self) -> Examples:
        examples = self.source.read_shared()
        is_val = _choose_validation(examples, self.val, self.seed)
        return examples.take(np.flatnonzero(is_val if self.split_name == "val" else ~is_val))


def _choose_validation(examples: Examples, fraction: float, seed: int) -> np.ndarray:
    """bool `(num_examples,)`: whether each example is in the validation split."""
    unit = "group" if examples.groups is not None else "image"
    groups = np.arange(len(examples)) if examples.groups is None else examples.groups
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    strata = np.zeros(len(first), np.int32)
    if examples.label_kind != "tags":
        strata = examples.label_rows().most_likely()[first]
    chosen = np.zeros(len(first), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        if len(members) < 2 and (unit == "image" or len(first) < 2):
            subject = f"class {examples.classes[stratum]!r} has" if examples.label_kind != "tags" else "there is only"
            raise DataError(f"{examples.origin}: {subject} 1 {unit}; a split needs at least 2 in every class.")
        if len(members) < 2:
            continue  # a class with a single group goes to training: it cannot be in both splits
        shuffled = np.random.default_rng([seed, int(stratum)]).permutation(members)
        before = np.cumsum(sizes[shuffled]) - sizes[shuffled]
        target = max(1, round(fraction * sizes[members].sum()))
        # Groups are taken until the target is reached; each split gets at least one.
        count = min(max(1, int((before + sizes[shuffled] / 2 <= target).sum())), len(members) - 1)
        chosen[shuffled[:count]] = True
    return chosen[group]
