"""What the three directions of copying have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from model_trainer.storage.sync.listing import Entry, Report

__all__ = ["Stopped", "Transfer", "Work"]


class Stopped(Exception):
    """The synchronization is to end; what is being copied is abandoned."""


@dataclass
class Work:
    """What a transfer needs while it runs.

    Attributes:
        stop: set when everything is to end.
        moved: called with the number of bytes that have been copied.
        assist: starts a function in up to so many other threads, when they are free.
    """

    stop: threading.Event
    moved: Callable[[int], None]
    assist: Callable[[int, Callable[[], None]], None]

    def check(self) -> None:
        """Raises Stopped if everything is to end."""
        if self.stop.is_set():
            raise Stopped


class Transfer(ABC):
    """Copies the entries of one folder to another.

    Attributes:
        source, target: the folders as the user wrote them.
        is_tree: whether in the target a file and a folder cannot have the same name, unlike in a store.
    """

    source: str
    target: str
    is_tree = False

    @abstractmethod
    def sources(self, report: Report) -> Iterator[Entry]:
        """The entries of the source; those that cannot be copied are reported."""

    @abstractmethod
    def targets(self, report: Report) -> Iterator[Entry]:
        """The entries of the target."""

    @abstractmethod
    def is_current(self, entry: Entry, existing: Entry) -> bool:
        """Whether time or ETag show that the target's file, of the same size, needs no copying."""

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
            Stopped: `work` is to end.
        """

    deleted_at_once = 1000  # of which an error concerns all

    @abstractmethod
    def delete(self, entries: Iterable[Entry]) -> None:
        """Deletes files and empty folders of the target."""

    def clear(self) -> None:  # noqa: B027
        """Deletes what an earlier process left that was killed."""
