"""The family of sources, and what can be done with any of them."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from model_trainer.config import Call, Choice, Live
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.sources.combined import Concatenated, Filtered, Reclassed, Subset
    from model_trainer.sources.split import Split

__all__ = ["Source", "each_read_once"]

_READ: ContextVar[list[tuple[Source, Examples]] | None] = ContextVar("read", default=None)


@contextlib.contextmanager
def each_read_once() -> Iterator[None]:
    """Inside the block a source that several others are part of, as both halves of a split are, is read once."""
    token = _READ.set([])
    try:
        yield
    finally:
        _READ.reset(token)


class Source(Choice):
    """Finds examples. Declaring one reads nothing; `read` does."""

    @classmethod
    def _of_text(cls, text: str) -> Any:
        """The source at a path, such as `data/train` or `train.csv`."""
        from model_trainer.sources.from_path import source_of_path

        is_misspelt = nearest(text, cls.kinds()) and "://" not in text and not files.exists(text)
        if not text or text[0] in "{[" or is_misspelt:
            return super()._of_text(text)  # broken JSON, or a kind that is misspelt
        return source_of_path(text)

    @abstractmethod
    def read(self) -> Examples:
        """The table of examples.

        Raises:
            DataError: there is nothing to read, or what is there is wrong; names the place.
        """

    def read_shared(self) -> Examples:
        """As `read`, for a source that is made of this one; see `each_read_once`."""
        known = _READ.get()
        if known is None:
            return self.read()
        for source, examples in known:
            if source == self:
                return examples
        known.append((self, self.read()))
        return known[-1][1]

    def split(self, val: float, seed: int = 0) -> tuple[Split, Split]:
        """`(train, val)`: every class gives the share `val` of its images to validation, at least one.

        Examples of one group stay together. The same seed over the same examples gives the same parts.
        """
        from model_trainer.sources.split import Split

        return (
            Split(source=self, val=val, seed=seed, part="train"),
            Split(source=self, val=val, seed=seed, part="val"),
        )

    def take(self, count: int, seed: int | None = None) -> Subset:
        """The first `count` examples; with a `seed`, as many at random."""
        from model_trainer.sources.combined import Subset

        return Subset(source=self, count=count, seed=seed)

    def filter(
        self,
        *,
        classes: tuple[str, ...] | None = None,
        name: str | None = None,
        min_images: int = 0,
        where: object = None,
    ) -> Filtered:
        """Only the examples that pass all of the given tests.

        Args:
            classes: that are kept; the other classes are gone, and examples that only had those.
            name: pattern of the image's name, such as "*/studio/*".
            min_images: classes with fewer images are gone.
            where: `Call` or function from `Examples` to bool `(num_examples,)`, True keeps.
        """
        from model_trainer.sources.combined import Filtered

        test = where if where is None or isinstance(where, (Call, Live)) else Live(value=where)
        return Filtered(source=self, classes=classes, name=name, min_images=min_images, where=test)

    def with_classes(self, classes: tuple[str, ...] | Source) -> Reclassed:
        """The same examples with their labels counted in another class list: given, or another source's."""
        from model_trainer.sources.combined import Reclassed

        return Reclassed(source=self, classes=classes)

    def __add__(self, other: Source) -> Concatenated:
        """The examples of both, this one's first; the classes of both together."""
        from model_trainer.sources.combined import Concatenated

        parts = [part.sources if isinstance(part, Concatenated) else (part,) for part in (self, other)]
        return Concatenated(sources=(*parts[0], *parts[1]))
