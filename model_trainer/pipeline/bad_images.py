"""Images that could not be read: each named once with its reason, and a limit to how many there may be."""

from __future__ import annotations

import threading

from absl import logging

from model_trainer.errors import DataError
from model_trainer.pipeline.pillow import why_file_unreadable

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
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each image could not be read, by path."""
        with self._lock:
            return dict(self._reasons)

    def add(self, path: str) -> None:
        """Notes that `path` could not be read, finds out why, and says so the first time."""
        with self._lock:
            if path in self._reasons:
                return
            self._reasons[path] = ""
        reason = why_file_unreadable(path, if_missing="is gone")
        with self._lock:
            self._reasons[path] = reason
        logging.warning("%s %s; it is skipped.", path, reason)

    def check(self) -> None:
        """Stops the run when there are too many.

        Raises:
            DataError: more than `max_count` and more than `max_share` of the images are bad.
        """
        if len(self) <= self.max_count or len(self) <= self.max_share * self.num_examples:
            return
        shown = "\n".join(f"  {path} {reason}" for path, reason in list(self.reasons.items())[:5])
        raise DataError(
            f"{len(self)} of {self.num_examples} images could not be read, among them\n{shown}\n"
            f"That is more than {self.max_count} and more than {self.max_share:.1%}. Mend or remove them, or raise "
            "the limits: --set training.max_bad_images=... --set training.max_bad_share=..."
        )
