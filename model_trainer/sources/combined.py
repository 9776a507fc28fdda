"""Sources made of other sources: a subset, a filter, a concatenation, or another class list."""

from __future__ import annotations

import fnmatch
from typing import final

import numpy as np
from pydantic import Field

from model_trainer.dotted import import_dotted
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import ConcatenatedImages, Files, Images
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.sources.source import Source
from model_trainer.user_code import Call, Live

__all__ = ["Concatenated", "Filtered", "Reclassed", "Subset"]


@final
class Subset(Source):
    """The first `count` examples of a source; with a seed, `count` random ones, in the order of the source.

    If the source has fewer examples, all of them.
    """

    former_names = ("Taken",)

    source: Source
    count: int = Field(ge=1)
    seed: int | None = None

    def read(self) -> Examples:
        examples = self.source.read_shared()
        if self.count >= len(examples):
            return examples
        if self.seed is None:
            return examples.take(np.arange(self.count))
        chosen = np.random.default_rng(self.seed).choice(len(examples), self.count, replace=False)
        return examples.take(np.sort(chosen))


@final
class Filtered(Source):
    """The examples of a source that pass all conditions; see `Source.filter`."""

    source: Source
    classes: tuple[str, ...] | None = None
    name: str | None = None
    min_images: int = Field(0, ge=0)
    where: Call | Live | None = None

    def read(self) -> Examples:
        examples = self.source.read_shared()
        examples = self._with_selected(examples, self._selected_classes(examples))
        if self.name is not None:
            matches = [fnmatch.fnmatch(name, self.name) for name in examples.names()]
            examples = examples.take(np.flatnonzero(matches))
        if self.where is not None:
            examples = examples.take(np.flatnonzero(self._apply_where(examples)))
        if not len(examples):
            raise DataError(f"{examples.origin}: no example passes the filter {self!r}.")
        return examples

    def _selected_classes(self, examples: Examples) -> tuple[str, ...]:
        selected = examples.classes if self.classes is None else self.classes
        for name in selected:
            if name not in examples.classes:
                raise DataError(f"{examples.origin} has no class {name!r} to keep.")
        frequent = {name for name, n in zip(examples.classes, examples.counts(), strict=True) if n >= self.min_images}
        return tuple(name for name in selected if name in frequent)

    def _with_selected(self, examples: Examples, classes: tuple[str, ...]) -> Examples:
        if classes == examples.classes:
            return examples
        position = np.array([classes.index(name) if name in classes else -1 for name in examples.classes], np.int32)
        if isinstance(examples.labels, LabelRows):
            moved = examples.labels.moved(position)
            is_cached = np.diff(moved.starts) > 0
        else:
            is_cached = position[examples.labels] >= 0
        return examples.take(np.flatnonzero(is_cached)).keep_classes(classes)

    def _apply_where(self, examples: Examples) -> np.ndarray:
        assert self.where is not None
        predicate = import_dotted(self.where.path) if isinstance(self.where, Call) else self.where.value
        arguments = self.where.arguments if isinstance(self.where, Call) else {}
        passed = np.asarray(predicate(examples, **arguments))
        if passed.shape != (len(examples),) or passed.dtype != bool:
            raise ConfigError(
                f"should return bool ({len(examples)},), one for each example; got {passed.dtype} {passed.shape}.",
                "where",
            )
        return passed


@final
class Concatenated(Source):
    """The examples of several sources, one after the other. Classes are merged by name, in order of appearance."""

    sources: tuple[Source, ...] = Field(min_length=1)

    def read(self) -> Examples:
        tables = [source.read_shared() for source in self.sources]
        classes = tuple(dict.fromkeys(name for table in tables for name in table.classes))
        tables = [table.with_classes(classes) for table in tables]
        firsts = np.cumsum([0, *(len(table.images) for table in tables)])
        return Examples(
            images=_concatenate_stores([table.images for table in tables]),
            rows=np.concatenate([table.rows + first for table, first in zip(tables, firsts[:-1], strict=True)]),
            labels=_concatenate_labels(tables),
            weights=np.concatenate([table.weights for table in tables]),
            classes=classes,
            origin=" + ".join(table.origin for table in tables),
            crops=_concatenate_crops(tables),
            groups=_concatenate_groups(tables),
        )


@final
class Reclassed(Source):
    """A source with its labels converted to another class list: names, or the classes of another source."""

    source: Source
    classes: tuple[str, ...] | Source

    def read(self) -> Examples:
        classes = self.classes.read_shared().classes if isinstance(self.classes, Source) else self.classes
        return self.source.read_shared().with_classes(classes)


def _concatenate_stores(stores: list[Images]) -> Images:
    files = [store for store in stores if isinstance(store, Files)]
    if len(files) < len(stores):
        return ConcatenatedImages(stores)
    return Files(PackedStrings.of(path for store in files for path in store.paths))


def _concatenate_labels(tables: list[Examples]) -> np.ndarray | LabelRows:
    kinds = {table.label_kind for table in tables}
    if kinds == {"single"}:
        return np.concatenate([table.labels for table in tables])
    if {"tags", "probabilities"} <= kinds:
        tags = next(table.origin for table in tables if table.label_kind == "tags")
        raise DataError(f"{tags} has tags and another source class probabilities; they cannot be joined.")
    rows = [table.label_rows() for table in tables]
    ends = np.cumsum([0, *(len(each.classes) for each in rows)])
    starts = [each.starts[:-1] + end for each, end in zip(rows, ends, strict=False)]
    return LabelRows(
        starts=np.concatenate([*starts, ends[-1:]]),
        classes=np.concatenate([each.classes for each in rows]),
        values=np.concatenate([each.values for each in rows]),
        exclusive="tags" not in kinds,
    )


def _concatenate_crops(tables: list[Examples]) -> np.ndarray | None:
    if all(table.crops is None for table in tables):
        return None
    return np.concatenate([np.zeros((len(each), 4), np.int32) if each.crops is None else each.crops for each in tables])


def _concatenate_groups(tables: list[Examples]) -> np.ndarray | None:
    """Groups of different sources are different groups; in a source without groups each image is its own."""
    if all(table.groups is None for table in tables):
        return None
    joined, first = [], 0
    for table in tables:
        own = np.arange(len(table)) if table.groups is None else np.unique(table.groups, return_inverse=True)[1]
        joined.append((own + first).astype(np.int32))
        first += int(own.max(initial=-1)) + 1
    return np.concatenate(joined)
