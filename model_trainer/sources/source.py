"""The family of sources, and the split of one into a training and a validation part."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, final

import numpy as np
from pydantic import Field

from model_trainer.config import Choice
from model_trainer.errors import DataError
from model_trainer.sources.examples import Examples

__all__ = ["Source", "Split"]


class Source(Choice):
    """Finds examples. Declaring one reads nothing; `read` does."""

    @abstractmethod
    def read(self) -> Examples:
        """The table of examples.

        Raises:
            DataError: there is nothing to read, or what is there is wrong; names the place.
        """

    def split(self, val: float, seed: int = 0) -> tuple[Split, Split]:
        """`(train, val)`: every class gives the share `val` of its images to validation, at least one.

        The same seed over the same files gives the same parts.
        """
        return (
            Split(source=self, val=val, seed=seed, part="train"),
            Split(source=self, val=val, seed=seed, part="val"),
        )


@final
class Split(Source):
    """One part of another source."""

    source: Source
    val: float = Field(gt=0, lt=1)  # share of each class that validates
    part: Literal["train", "val"]
    seed: int = 0

    def read(self) -> Examples:
        examples = self.source.read()
        is_val = np.zeros(len(examples), dtype=bool)
        for label, name in enumerate(examples.classes):
            members = np.flatnonzero(examples.labels == label)
            if len(members) < 2:
                raise DataError(
                    f"{examples.origin}: class {name!r} has {len(members)} image; "
                    "a split needs at least 2 in every class."
                )
            num_val = min(max(1, round(self.val * len(members))), len(members) - 1)
            shuffle = np.random.default_rng([self.seed, label])
            is_val[shuffle.permutation(members)[:num_val]] = True
        return examples.take(np.flatnonzero(is_val if self.part == "val" else ~is_val))
