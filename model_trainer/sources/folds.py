"""Divides a source into folds for cross-validation: each example is in the validation data of exactly one fold."""

from __future__ import annotations

from typing import Any, Literal, final

import numpy as np
from absl import logging
from pydantic import Field, model_validator

from model_trainer.errors import ConfigError, DataError
from model_trainer.messages import counted
from model_trainer.sources.examples import Examples
from model_trainer.sources.source import Source

__all__ = ["Fold", "assign_folds", "fold_pair"]

MAX_FOLDS = 10_000  # each trains a model, and all of them are held as a list


@final
class Fold(Source):
    """The training or the validation data of one fold of another source; see `Source.folds`.

    Folds are stratified: the examples of each class, or tag, are divided evenly over them. Rows of the same image, such
    as its crops, stay together. If the source has groups, a group is never divided, and groups that share an image stay
    together. An example with class probabilities counts as one of its most likely class.
    """

    former_fields = {"part": "split"}

    source: Source
    num_folds: int = Field(5, ge=2, le=MAX_FOLDS, alias="folds")  # `folds` is a method of every source
    index: int = Field(0, ge=0)  # of the fold, below `folds`
    seed: int = Field(0, ge=0)
    split_name: Literal["train", "val"] = Field("train", alias="split")  # `split` is a method, too

    @model_validator(mode="after")
    def _index_below_folds(self) -> Any:
        if self.index >= self.num_folds:
            problem = f"should be below `folds`, {self.num_folds}, got {self.index}; it counts from 0."
            raise ConfigError(problem, "index")
        return self

    def read(self) -> Examples:
        examples = self.source.read_shared()
        is_val = assign_folds(examples, self.num_folds, self.seed) == self.index
        if self.index == 0 and self.split_name == "train":  # in one of the folds only, so that it is logged once
            _log_repeated_images(examples)
            _warn_of_small_classes(examples, self.num_folds)
        return examples.take(np.flatnonzero(is_val if self.split_name == "val" else ~is_val))


def fold_pair(source: Source, folds: int, index: int, seed: int) -> tuple[Fold, Fold]:
    """The training and the validation data of the fold `index`, counted from 0.

    Raises:
        ConfigError: a number is out of its range, or not an integer.
    """
    return (
        Fold(source=source, num_folds=folds, index=index, seed=seed, split_name="train"),
        Fold(source=source, num_folds=folds, index=index, seed=seed, split_name="val"),
    )


def assign_folds(examples: Examples, folds: int, seed: int) -> np.ndarray:
    """Assigns each example to the fold whose validation data contains it.

    The units that are assigned are groups or, without groups, images with all their rows. Units with the same size and
    labels are dealt out evenly. The remaining ones are placed one by one, the largest and those of the rarest classes
    first, each in the fold that it unbalances least.

    Returns:
        int32 `(num_examples,)`, from 0 to `folds` - 1.

    Raises:
        DataError: there are fewer images, or groups, than folds.
    """
    unit = _units(examples)
    sizes = np.bincount(unit)
    _check_enough(examples, folds, len(sizes))
    random = np.random.default_rng(seed)
    labels = _UnitLabels.of(examples, unit)
    order, run_of = _order(labels, sizes, random)
    lengths = np.bincount(run_of)
    position = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    fold = np.empty(len(sizes), np.int32)
    fold[order] = position % folds
    remainder = order[position >= (lengths // folds * folds)[run_of]]
    fold[remainder] = _place(remainder, labels, sizes, folds)
    return fold[unit]


class _UnitLabels:
    """The number of labels of each class in each unit, as sparse rows; see `assign_folds` for units."""

    def __init__(self, starts: np.ndarray, classes: np.ndarray, counts: np.ndarray, totals: np.ndarray) -> None:
        self.starts, self.classes, self.counts, self.totals = starts, classes, counts, totals

    @classmethod
    def of(cls, examples: Examples, unit: np.ndarray) -> _UnitLabels:
        example, label = _label_pairs(examples)
        num_classes, num_units = max(1, len(examples.classes)), int(unit.max(initial=-1)) + 1
        pairs, counts = np.unique(unit[example] * num_classes + label, return_counts=True)
        unit_of_pair, classes = np.divmod(pairs, num_classes)
        starts = np.searchsorted(unit_of_pair, np.arange(num_units + 1))
        return cls(starts, classes, counts, np.bincount(classes, counts, num_classes))

    @property
    def unit_of_entry(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def _units(examples: Examples) -> np.ndarray:
    """int64 `(num_examples,)`: the index of each example's image or, if the source has groups, of its group.

    Groups that share an image are merged.
    """
    images = examples.image_numbers
    if examples.groups is None:
        return images
    groups = np.unique(examples.groups, return_inverse=True)[1].reshape(-1)
    is_repeated = np.bincount(images)[images] > 1
    if not is_repeated.any():
        return groups
    from scipy import sparse

    num_groups = int(groups.max()) + 1
    num_nodes = num_groups + int(images.max()) + 1  # of a graph in which groups are connected to their images
    edges = (groups[is_repeated], images[is_repeated] + num_groups)
    graph = sparse.coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(num_nodes, num_nodes))
    # Components are numbered in the order of their first nodes, which are groups.
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)[groups]


def _label_pairs(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """`(example, label)`, both int64 `(num_labels,)`: the index of the example, and of the class, for every label."""
    labels = examples.label_rows()
    if examples.label_kind == "tags":
        is_present = labels.values >= 0.5  # not the unknown ones
        return labels.row_of_entry()[is_present], labels.classes[is_present].astype(np.int64)
    best = labels.most_likely()
    return np.flatnonzero(best >= 0), best[best >= 0].astype(np.int64)


def _order(labels: _UnitLabels, sizes: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The units in the order in which they are placed, those with the same labels in a run, each run shuffled.

    Returns:
        The units, and for each of them the index of its run.
    """
    entries = labels.unit_of_entry
    codes = random.integers(2**63, size=len(labels.totals) + 1, dtype=np.uint64)
    signature = sizes.astype(np.uint64) * codes[-1]  # a sum of random numbers: equal only if size and labels are
    np.add.at(signature, entries, codes[labels.classes] * labels.counts.astype(np.uint64))
    rarest = np.full(len(sizes), np.inf)
    np.minimum.at(rarest, entries, labels.totals[labels.classes])
    shuffled = random.permutation(len(sizes))
    order = shuffled[np.lexsort((signature[shuffled], rarest[shuffled], -sizes[shuffled]))]
    return order, np.concatenate([[0], np.cumsum(np.diff(signature[order]) != 0)])


def _place(units: np.ndarray, labels: _UnitLabels, sizes: np.ndarray, folds: int) -> np.ndarray:
    """Places units one by one, each in the fold that it unbalances least.

    The imbalance is the sum, over the folds and over the classes, of the squared fraction of a class that a fold has;
    all examples together count as one more class.

    Returns:
        int32 `(len(units),)`, the fold of each unit.
    """
    in_fold = np.zeros((folds, len(labels.totals)))
    images, weight_of_size = np.zeros(folds), 1.0 / float(sizes.sum()) ** 2
    weights = 1.0 / np.maximum(labels.totals, 1.0) ** 2
    chosen = np.empty(len(units), np.int32)
    for index, unit in enumerate(units):
        row = slice(labels.starts[unit], labels.starts[unit + 1])
        classes, counts = labels.classes[row], labels.counts[row]
        cost = (in_fold[:, classes] * (counts * weights[classes])).sum(axis=1) + images * (sizes[unit] * weight_of_size)
        best = int(cost.argmin())
        in_fold[best, classes] += counts
        images[best] += sizes[unit]
        chosen[index] = best
    return chosen


def _check_enough(examples: Examples, folds: int, num_units: int) -> None:
    if num_units >= folds:
        return
    if examples.groups is None:
        kind = "image{s}" if num_units == len(examples) else "different image{s}"
        raise DataError(
            f"{examples.origin} has {counted(num_units, kind)}, too few for {folds} folds. Use fewer folds, at "
            "least 2, or more images."
        )
    raise DataError(
        f"{examples.origin} has {counted(num_units, 'group{s}')}, too few for {folds} folds, since a group is never "
        f"divided. Use at most {max(num_units, 2)} folds, or data of more groups."
    )


def _log_repeated_images(examples: Examples) -> None:
    count = int((np.bincount(examples.image_numbers) > 1).sum())
    if count:
        logging.info(
            "%s: %s; all rows of an image stay in one fold.",
            examples.origin, counted(count, "image{s} in several rows"),
        )  # fmt: skip


def _warn_of_small_classes(examples: Examples, folds: int) -> None:
    unit = _units(examples)
    example, label = _label_pairs(examples)
    num_classes = max(1, len(examples.classes))
    per_class = np.bincount(np.unique(unit[example] * num_classes + label) % num_classes, minlength=num_classes)
    small = np.flatnonzero((per_class > 0) & (per_class < folds))
    if len(small):
        units = "image{s}" if examples.groups is None else "group{s}"
        logging.warning(
            "%s: %s fewer %s than the %d folds, such as %r with %d; not every fold can validate them.",
            examples.origin, "1 class has" if len(small) == 1 else f"{len(small):,} classes have",
            units.replace("{s}", "s"), folds, examples.classes[small[0]], per_class[small[0]],
        )  # fmt: skip
