"""Files where the source has a folder, and folders where it has a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from model_trainer.messages import shown
from model_trainer.storage.sync.listing import Entry

__all__ = ["Obstacles", "parents_of", "through_link"]


class Obstacles:
    """Finds what in a target on a file system keeps an entry of the source from being written.

    Args:
        existing: the entries of the target.
    """

    def __init__(self, existing: Iterable[Entry]) -> None:
        self._files: dict[str, bool] = {}  # whether it is a link, by name
        self._folders: set[str] = set()
        for entry in existing:
            if entry.is_folder:
                self._folders.add(entry.name)
            else:
                self._files[entry.name] = entry.is_link
            self._folders.update(parents_of(entry.name))

    def of(self, entry: Entry) -> str | None:
        """The name of what is in the way of an entry of the source; None if nothing is."""
        if entry.is_folder and entry.name in self._files:
            return entry.name
        if not entry.is_folder and entry.name in self._folders:
            return entry.name
        return next((name for name in parents_of(entry.name) if name in self._files), None)

    def has_folder(self, entry: Entry) -> bool:
        """Whether an entry is a folder that exists."""
        return entry.is_folder and entry.name in self._folders

    def is_link(self, name: str) -> bool:
        return self._files.get(name, False)

    def reason(self, name: str) -> str:
        """Why nothing is written there without deleting `name`."""
        if self.is_link(name):
            return through_link(name)
        kind = "file" if name in self._files else "folder"
        return f"{shown(name)} is a {kind} in the target; --delete replaces it"


def through_link(name: str) -> str:
    """Why nothing is written below `name`."""
    return f"{shown(name)} is a link in the target, and nothing is written through it; replace it by a folder"


def parents_of(name: str) -> Iterator[str]:
    """The folders that contain a name, innermost first: "a/b" and "a" for "a/b/c"."""
    while name := name.rpartition("/")[0]:
        yield name
