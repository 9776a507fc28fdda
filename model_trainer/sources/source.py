"""The base class of data sources, and the operations that all of them have: split, take, filter, concatenate."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from model_trainer.config import Choice
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples
from model_trainer.storage import files
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    from model_trainer.sources.combined import Concatenated, Filtered, Reclassed, Subset
    from model_trainer.sources.folds import Fold
    from model_trainer.sources.split import Split

__all__ = ["Source", "each_read_once"]

_READ: ContextVar[list[tuple[Source, Examples]] | None] = ContextVar("read", default=None)


@contextlib.contextmanager
def each_read_once() -> Iterator[None]:
    """Within this context, a source on which several others are based, such as its two splits, is read only once."""
    if _READ.get() is not None:
        yield
        return
    token = _READ.set([])
    try:
        yield
    finally:
        _READ.reset(token)


class Source(Choice):
    """Base class of data sources. Declaring a source reads nothing; `read` returns its table of examples."""

    @classmethod
    def _of_text(cls, text: str) -> Any:
        """The source at a path, such as `data/train` or `train.csv`."""
        from model_trainer.sources.from_path import source_of_path

        is_misspelt = nearest(text, cls.kinds()) and "://" not in text and not files.exists(text)
        if not text or text[0] in "{[" or is_misspelt:
            return super()._of_text(text)  # broken JSON, or a misspelt kind
        return source_of_path(text)

    @abstractmethod
    def read(self) -> Examples:
        """Reads the table of examples.

        Raises:
            DataError: the data is missing or invalid; the message names the file, and the line or record.
        """

    def read_shared(self) -> Examples:
        """The same as `read`, but cached within `each_read_once`; for sources that are based on this one."""
        cache = _READ.get()
        if cache is None:
            return self.read()
        for source, examples in cache:
            if source == self:
                return examples
        cache.append((self, self.read()))
        return cache[-1][1]

    def split(self, val: float, seed: int = 0) -> tuple[Split, Split]:
        """Splits the source into training and validation data, stratified by class.

        Examples of one group stay together. The same seed and the same examples give the same splits.

        Args:
            val: fraction of each class for validation, at least one image, above 0 and below 1.
            seed: of the random choice.

        Returns:
            `(train, val)`.

        Example:
            >>> train_data, val_data = ImageFolder("data/train").split(val=0.25)
            >>> len(train_data.read()), len(val_data.read())
            (12, 4)
        """
        from model_trainer.sources.split import Split

        return (
            Split(source=self, val=val, seed=seed, split_name="train"),
            Split(source=self, val=val, seed=seed, split_name="val"),
        )

    def folds(self, folds: int = 5, seed: int = 0) -> list[tuple[Fold, Fold]]:
        """Divides the source for k-fold cross-validation: each example is in the validation data of one fold.

        The folds are stratified by class, and by tag; examples of one group, and rows of the same image, stay
        together. The same seed and the same examples give the same folds.

        Args:
            folds: number of folds, 2 to 10,000.
            seed: of the random choice.

        Returns:
            `(train, val)` of each fold.

        Example:
            >>> for train_data, val_data in ImageFolder("data/train").folds(4):
            ...     print(len(train_data.read()), val_data.read().counts())
            12 [2 2]
            12 [2 2]
            12 [2 2]
            12 [2 2]
        """
        from model_trainer.sources.folds import fold_pair

        first = fold_pair(self, folds, 0, seed)  # checks both numbers
        return [first, *(fold_pair(self, first[0].num_folds, index, seed) for index in range(1, first[0].num_folds))]

    def take(self, count: int, seed: int | None = None) -> Subset:
        """The first `count` examples; with a `seed`, `count` random ones.

        Example:
            >>> ImageFolder("data/train").take(3).read().names()
            ['data/train/cat/0.jpg', 'data/train/cat/1.jpg', 'data/train/cat/2.jpg']
        """
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
        """The examples that pass all of these conditions.

        Args:
            classes: keeps these classes; other classes are removed, and with them the examples that have no label left.
            name: pattern of the image's name, such as "*/studio/*".
            min_images: removes classes with fewer images.
            where: `Call` or function from `Examples` to bool `(num_examples,)`; True keeps the example.

        Example:
            >>> ImageFolder("data/train").filter(classes=("dog",), name="*/[0-3].jpg").read().counts()
            array([4])
        """
        from model_trainer.sources.combined import Filtered

        test = where if where is None or isinstance(where, (Call, Live)) else Live(value=where)
        return Filtered(source=self, classes=classes, name=name, min_images=min_images, where=test)

    def with_classes(self, classes: tuple[str, ...] | Source) -> Reclassed:
        """The same examples with their labels converted to another class list.

        Args:
            classes: names of the classes in their order, or a source whose classes are used.

        Example:
            >>> ImageFolder("data/train").with_classes(("dog", "cat")).read().classes
            ('dog', 'cat')
        """
        from model_trainer.sources.combined import Reclassed

        return Reclassed(source=self, classes=classes)

    def __add__(self, other: Source) -> Concatenated:
        """Concatenates two sources, this one first; their classes are merged.

        Example:
            >>> len((ImageFolder("data/train") + ImageFolder("data/val")).read())
            24
        """
        from model_trainer.sources.combined import Concatenated

        flat = [each.sources if isinstance(each, Concatenated) else (each,) for each in (self, other)]
        return Concatenated(sources=(*flat[0], *flat[1]))
