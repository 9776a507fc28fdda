"""A source in two parts: one to train, one to validate."""

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
    """One part of another source.

    Each class is divided by itself; of several labels none leads, so tagged images are divided as a whole. Groups are
    divided instead of images where the source has them; a group counts to the class of its first image.
    """

    source: Source
    val: float = Field(gt=0, lt=1)  # share of each class that validates
    part: Literal["train", "val"]
    seed: int = 0

    def read(self) -> Examples:
        examples = self.source.read_shared()
        is_val = _validation(examples, self.val, self.seed)
        return examples.take(np.flatnonzero(is_val if self.part == "val" else ~is_val))


def _validation(examples: Examples, share: float, seed: int) -> np.ndarray:
    """bool `(num_examples,)`: who validates."""
    what = "group" if examples.groups is not None else "image"
    groups = np.arange(len(examples)) if examples.groups is None else examples.groups
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    strata = np.zeros(len(first), np.int32)
    if examples.label_kind != "tags":
        strata = examples.label_rows().most_likely()[first]
    chosen = np.zeros(len(first), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        if len(members) < 2 and (what == "image" or len(first) < 2):
            whose = f"class {examples.classes[stratum]!r} has" if examples.label_kind != "tags" else "there is only"
            raise DataError(f"{examples.origin}: {whose} 1 {what}; a split needs at least 2 in every class.")
        if len(members) < 2:
            continue  # a class in one group only trains: validation cannot have it without parting the group
        shuffled = np.random.default_rng([seed, int(stratum)]).permutation(members)
        before = np.cumsum(sizes[shuffled]) - sizes[shuffled]
        wanted = max(1, round(share * sizes[members].sum()))
        # Groups are taken while they are wanted; one at least stays on either side.
        count = min(max(1, int((before + sizes[shuffled] / 2 <= wanted).sum())), len(members) - 1)
        chosen[shuffled[:count]] = True
    return chosen[group]
