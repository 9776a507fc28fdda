"""Images that could not be read: each named once with its reason, and a limit to how many there may be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import PurePath

from absl import logging

from model_trainer.errors import DataError
from model_trainer.images.pillow import why_unreadable
from model_trainer.storage import files
from model_trainer.storage.lines import csv_lines
from model_trainer.storage.read import why_not_read

__all__ = ["BadImages"]


class BadImages:
    """Collects the unreadable images of a run; the pipeline's threads call `add`.

    Args:
        max_count: how many are borne without question.
        max_share: the share of `num_examples` that is borne besides; both must be passed to stop.
    """

    def __init__(self, max_count: int, max_share: float, num_examples: int) -> None:
        self.max_count = max_count
        self.max_share = max_share
        self.num_examples = num_examples
        self._reasons: dict[str, str] = {}
        self._table: PurePath | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each image could not be read, by name."""
        with self._lock:
            return dict(self._reasons)

    def get_state(self) -> dict[str, str]:
        """The reasons, for a checkpoint."""
        return self.reasons

    def set_state(self, state: Mapping[str, str]) -> None:
        """Takes over what a run found before it was resumed; nothing of it is said again."""
        with self._lock:
            self._reasons |= state
            if self._table is not None:
                files.delete(self._table)  # it may name more, which will be found again
                self._append(*((name, reason) for name, reason in self._reasons.items() if reason))

    def take_over(self, reasons: Mapping[str, str]) -> None:
        """Takes over what another process of the same run found, and has said itself."""
        with self._lock:
            new = {name: reason for name, reason in reasons.items() if name not in self._reasons}
            self._reasons |= new
            self._append(*new.items())

    def write_to(self, path: PurePath) -> None:
        """From the first bad image on `path` is a table of them, `image,reason`; without any there is no file."""
        with self._lock:
            self._table = path
            self._append(*((name, reason) for name, reason in self._reasons.items() if reason))

    def add(self, name: str, read: Callable[[], bytes], crop: tuple[int, int, int, int] | None = None) -> None:
        """Notes that the image could not be read, finds out why, and says so the first time.

        Args:
            read: gives the encoded image, or raises OSError.
            crop: x, y, width and height of the part that was wanted, where it was only a part.
        """
        with self._lock:
            if name in self._reasons:
                return
            self._reasons[name] = ""
        reason = _why(read, crop)
        with self._lock:
            self._reasons[name] = reason
            self._append((name, reason))
        logging.warning("%s %s; it is skipped.", name, reason)

    def check(self) -> None:
        """Stops the run when there are too many.

        Raises:
            DataError: more than `max_count` and more than `max_share` of the images are bad.
        """
        if len(self) <= self.max_count or len(self) <= self.max_share * self.num_examples:
            return
        shown = "\n".join(f"  {name} {reason}" for name, reason in list(self.reasons.items())[:5])
        raise DataError(
            f"{len(self)} of {self.num_examples} images could not be read, among them\n{shown}\n"
            f"That is more than {self.max_count} and more than {self.max_share:.1%}. Mend or remove them, or raise "
            "the limits: --set training.max_bad_images=... --set training.max_bad_share=..."
        )

    def _append(self, *rows: tuple[str, str]) -> None:
        if self._table is None or not rows:
            return
        header = [] if files.exists(self._table) else [("image", "reason")]
        try:
            files.append_text(self._table, csv_lines([*header, *rows]))
        except OSError as error:  # no reason to end a training; the log names them too
            logging.warning("%s could not be written: %s.", self._table, error.strerror)


def _why(read: Callable[[], bytes], crop: tuple[int, int, int, int] | None) -> str:
    try:
        reason = why_unreadable(read())
    except OSError as error:
        return why_not_read(error, if_missing="is gone")
    if crop is not None and reason.startswith("could not be read at first"):
        return f"does not reach its crop {list(crop)}"
    return reason
