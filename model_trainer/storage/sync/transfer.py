"""What the three directions of copying have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from model_trainer.storage.sync.listing import Entry, Report

__all__ = ["Stopped", "Transfer", "Work"]


class Stopped(Exception):
    """The synchronization is stopping; unfinished copies are abandoned."""


@dataclass
class Work:
    """What a transfer needs while it runs.

    Attributes:
        stop: set when the synchronization has to stop.
        moved: called with the number of bytes that have been copied.
        assist: `assist(count, function)` runs a function in up to `count` other threads as they become free.
    """

    stop: threading.Event
    moved: Callable[[int], None]
    assist: Callable[[int, Callable[[], None]], None]

    def check(self) -> None:
        """Raises Stopped if the synchronization has to stop."""
        if self.stop.is_set():
            raise Stopped


class Transfer(ABC):
    """Copies the entries of one folder to another.

    Attributes:
        source, target: the folders as the user wrote them.
        is_tree: whether a file and a folder of the target cannot have the same name, unlike in a store.
        deleted_at_once: how many entries `delete` gets per call; an error concerns all of them.
    """

    source: str
    target: str
    is_tree = False
    deleted_at_once = 1000

    @abstractmethod
    def sources(self, report: Report) -> Iterator[Entry]:
        """The entries of the source; those that cannot be copied are reported."""

    @abstractmethod
    def targets(self, report: Report) -> Iterator[Entry]:
        """The entries of the target."""

    @abstractmethod
    def is_current(self, entry: Entry, existing: Entry) -> bool:
        """Whether the time or ETag shows that the target's file, of the same size, needs no copying."""

    @abstractmethod
    def has_same_content(self, entry: Entry, existing: Entry, work: Work) -> bool:
        """Whether the files have the same content, by their checksums; False if that cannot be known."""

    def keep(self, entry: Entry) -> None:  # noqa: B027
        """Notes that the target's file turned out to have the content of `entry`."""

    @abstractmethod
    def copy(self, entry: Entry, work: Work) -> None:
        """Copies a file, or makes an empty folder.

        Raises:
            OSError: it cannot be read or written.
            Stopped: `work.stop` is set.
        """

    @abstractmethod
    def delete(self, entries: Iterable[Entry]) -> None:
        """Deletes files and empty folders of the target."""

    def clear(self) -> None:  # noqa: B027
        """Deletes what an earlier process, which was killed, has left."""
