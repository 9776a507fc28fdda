"""Sources made of other sources: a part of one, several as one, or one with other classes."""

from __future__ import annotations

import fnmatch
from typing import final

import numpy as np
from pydantic import Field

from model_trainer.config import Call, Live
from model_trainer.dotted import import_dotted
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.sources.images import Files, Images, SeveralImages
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.packed_strings import PackedStrings
from model_trainer.sources.source import Source

__all__ = ["Concatenated", "Filtered", "Reclassed", "Subset"]


@final
class Subset(Source):
    """The first `count` examples of a source; with a seed, as many at random, in the source's order."""

    former_names = ("Subset",)

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
    """The examples of a source that pass all of the given tests; see `Source.filter`."""

    source: Source
    classes: tuple[str, ...] | None = None
    name: str | None = None
    min_images: int = Field(0, ge=0)
    where: Call | Live | None = None

    def read(self) -> Examples:
        examples = self.source.read_shared()
        examples = self._of_classes(examples, self._kept_classes(examples))
        if self.name is not None:
            matches = [fnmatch.fnmatch(name, self.name) for name in examples.names()]
            examples = examples.take(np.flatnonzero(matches))
        if self.where is not None:
            examples = examples.take(np.flatnonzero(self._tested(examples)))
        if not len(examples):
            raise DataError(f"{examples.origin}: no example passes the filter {self!r}.")
        return examples

    def _kept_classes(self, examples: Examples) -> tuple[str, ...]:
        kept = examples.classes if self.classes is None else self.classes
        for name in kept:
            if name not in examples.classes:
                raise DataError(f"{examples.origin} has no class {name!r} to keep.")
        many = {name for name, n in zip(examples.classes, examples.counts(), strict=True) if n >= self.min_images}
        return tuple(name for name in kept if name in many)

    def _of_classes(self, examples: Examples, kept: tuple[str, ...]) -> Examples:
        if kept == examples.classes:
            return examples
        position = np.array([kept.index(name) if name in kept else -1 for name in examples.classes], np.int32)
        if isinstance(examples.labels, LabelRows):
            moved = examples.labels.moved(position)
            stays = np.diff(moved.starts) > 0
        else:
            stays = position[examples.labels] >= 0
        return examples.take(np.flatnonzero(stays)).keep_classes(kept)

    def _tested(self, examples: Examples) -> np.ndarray:
        assert self.where is not None
        test = import_dotted(self.where.path) if isinstance(self.where, Call) else self.where.value
        arguments = self.where.arguments if isinstance(self.where, Call) else {}
        passed = np.asarray(test(examples, **arguments))
        if passed.shape != (len(examples),) or passed.dtype != bool:
            raise ConfigError(
                f"should give bool ({len(examples)},), one for each example; got {passed.dtype} {passed.shape}.",
                "where",
            )
        return passed


@final
class Concatenated(Source):
    """The examples of several sources, one after the other. Classes are merged by name, in order of appearance."""

    sources: tuple[Source, ...] = Field(min_length=1)

    def read(self) -> Examples:
        parts = [source.read_shared() for source in self.sources]
        classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
        parts = [part.with_classes(classes) for part in parts]
        firsts = np.cumsum([0, *(len(part.images) for part in parts)])
        return Examples(
            images=_one_store([part.images for part in parts]),
            rows=np.concatenate([part.rows + first for part, first in zip(parts, firsts[:-1], strict=True)]),
            labels=_joined_labels(parts),
            weights=np.concatenate([part.weights for part in parts]),
            classes=classes,
            origin=" + ".join(part.origin for part in parts),
            crops=_joined_crops(parts),
            groups=_joined_groups(parts),
        )


@final
class Reclassed(Source):
    """A source with its labels counted in another class list: given, or that of another source."""

    source: Source
    classes: tuple[str, ...] | Source

    def read(self) -> Examples:
        classes = self.classes.read_shared().classes if isinstance(self.classes, Source) else self.classes
        return self.source.read_shared().with_classes(classes)


def _one_store(stores: list[Images]) -> Images:
    files = [store for store in stores if isinstance(store, Files)]
    if len(files) < len(stores):
        return SeveralImages(stores)
    return Files(PackedStrings.of(path for store in files for path in store.paths))


def _joined_labels(parts: list[Examples]) -> np.ndarray | LabelRows:
    kinds = {part.label_kind for part in parts}
    if kinds == {"single"}:
        return np.concatenate([part.labels for part in parts])
    if {"tags", "probabilities"} <= kinds:
        tags = next(part.origin for part in parts if part.label_kind == "tags")
        raise DataError(f"{tags} has tags and another source class probabilities; they cannot be joined.")
    rows = [part.label_rows() for part in parts]
    ends = np.cumsum([0, *(len(each.classes) for each in rows)])
    starts = [each.starts[:-1] + end for each, end in zip(rows, ends, strict=False)]
    return LabelRows(
        starts=np.concatenate([*starts, ends[-1:]]),
        classes=np.concatenate([each.classes for each in rows]),
        values=np.concatenate([each.values for each in rows]),
        exclusive="tags" not in kinds,
    )


def _joined_crops(parts: list[Examples]) -> np.ndarray | None:
    if all(part.crops is None for part in parts):
        return None
    return np.concatenate([np.zeros((len(p), 4), np.int32) if p.crops is None else p.crops for p in parts])


def _joined_groups(parts: list[Examples]) -> np.ndarray | None:
    """Groups of different sources are different groups; without groups each image is its own."""
    if all(part.groups is None for part in parts):
        return None
    joined, first = [], 0
    for part in parts:
        own = np.arange(len(part)) if part.groups is None else np.unique(part.groups, return_inverse=True)[1]
        joined.append((own + first).astype(np.int32))
        first += int(own.max(initial=-1)) + 1
    return np.concatenate(joined)
