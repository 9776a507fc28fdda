"""Unreadable images: each is logged once with the reason, and too many stop the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import TypeVar

from absl import logging

from model_trainer.errors import DataError, StorageError
from model_trainer.images.pillow import why_unreadable
from model_trainer.storage import files
from model_trainer.storage.lines import csv_lines
from model_trainer.storage.read import why_not_read

__all__ = ["BadImages"]

T = TypeVar("T")


class BadImages:
    """Collects the unreadable images of a run; the pipeline's threads call `add`.

    The run stops when both limits are exceeded.

    Args:
        max_count: unreadable images that are tolerated.
        max_fraction: fraction of `num_examples` that is tolerated.
        num_examples: number of examples in the data set.
    """

    def __init__(self, max_count: int, max_fraction: float, num_examples: int) -> None:
        self.max_count = max_count
        self.max_fraction = max_fraction
        self.num_examples = num_examples
        self._reasons: dict[str, str] = {}
        self._table: PurePath | None = None
        self._failure: StorageError | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each image could not be read, by name."""
        with self._lock:
            return dict(self._reasons)

    def get_state(self) -> dict[str, str]:
        """The reasons by image name, for a checkpoint."""
        return self.reasons

    def set_state(self, state: Mapping[str, str]) -> None:
        """Restores the bad images from a checkpoint; they are not logged again."""
        with self._lock:
            self._reasons |= state
            if self._table is not None:
                files.delete(self._table)  # it may list images read after the checkpoint, which will be read again
                self._append(*((name, reason) for name, reason in self._reasons.items() if reason))

    def take_over(self, reasons: Mapping[str, str]) -> None:
        """Adds the bad images of another process of the same run, which has already logged them."""
        with self._lock:
            new = {name: reason for name, reason in reasons.items() if name not in self._reasons}
            self._reasons |= new
            self._append(*new.items())

    def write_to(self, path: PurePath) -> None:
        """Writes the bad images to a CSV file with the columns `image,reason`; without any, no file is created."""
        with self._lock:
            self._table = path
            self._append(*((name, reason) for name, reason in self._reasons.items() if reason))

    def add(self, name: str, read: Callable[[], bytes], crop: tuple[int, int, int, int] | None = None) -> None:
        """Records an image that could not be read, and logs the reason the first time.

        Args:
            name: the path or other name of the image.
            read: returns the encoded image, or raises OSError.
            crop: x, y, width and height of the example's crop, if it has one.

        Raises:
            StorageError: the store of the images refuses every request, or does not answer.
        """
        with self._lock:
            if name in self._reasons:
                return
            self._reasons[name] = ""
        try:
            reason = _why(read, crop)
        except StorageError as error:
            self.fail(error)
            with self._lock:
                del self._reasons[name]
            raise
        with self._lock:
            self._reasons[name] = reason
            self._append((name, reason))
        logging.warning("%s %s; it is skipped.", name, reason)

    def fail(self, error: StorageError) -> None:
        """Records that the store of the images refuses every request, or does not answer; no image counts as bad."""
        self._failure = self._failure or error

    def checked(self, batches: Iterable[T]) -> Iterable[T]:
        """The same batches, which may be iterated again; if the store fails, its error replaces TensorFlow's.

        Raises:
            StorageError: the store of the images refuses every request, or does not answer.
        """
        return _Checked(batches, self)

    def raise_failure(self) -> None:
        """Raises the error that `fail` recorded, if any, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def check(self) -> None:
        """Stops the run if there are too many bad images.

        Raises:
            DataError: more than `max_count` images, and more than the fraction `max_fraction`, are bad.
        """
        if len(self) <= self.max_count or len(self) <= self.max_fraction * self.num_examples:
            return
        shown = "\n".join(f"  {name} {reason}" for name, reason in list(self.reasons.items())[:5])
        raise DataError(
            f"{len(self)} of {self.num_examples} images could not be read, among them\n{shown}\n"
            f"That is more than {self.max_count} and more than {self.max_fraction:.1%}. Fix or remove them, or raise "
            "the limits: --set training.max_bad_images=... --set training.max_bad_fraction=..."
        )

    def _append(self, *rows: tuple[str, str]) -> None:
        if self._table is None or not rows:
            return
        header = [] if files.exists(self._table) else [("image", "reason")]
        try:
            files.append_text(self._table, csv_lines([*header, *rows]))
        except OSError as error:  # no reason to stop the training; the log lists them too
            logging.warning("%s could not be written: %s.", self._table, error.strerror)


class _Checked(Iterable[T]):
    def __init__(self, batches: Iterable[T], bad_images: BadImages) -> None:
        self._batches = batches
        self._bad_images = bad_images

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._batches
        except Exception:  # TensorFlow's error, whose message contains a traceback
            self._bad_images.raise_failure()
            raise


def _why(read: Callable[[], bytes], crop: tuple[int, int, int, int] | None) -> str:
    try:
        reason = why_unreadable(read())
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        return why_not_read(error, if_missing="does not exist")
    if crop is not None and reason.startswith("could not be read at first"):
        return f"does not contain its crop {list(crop)}"
    return reason
