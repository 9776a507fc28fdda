"""The output folder and saver of processes that are not the chief worker: the same methods, which write nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, final

import keras
import numpy as np

from model_trainer.errors import StorageError
from model_trainer.run.run import Run
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.history import Row
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.run_folder import RunFolder

__all__ = ["NonChiefRunFolder", "NonChiefSaver"]


@final
class NonChiefRunFolder(RunFolder):
    """The output folder, which only the chief writes to."""

    def write_options(self, run: Run, resolved_settings: dict[str, Any]) -> None:
        pass

    def save_model(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None = None) -> None:
        pass

    def save_best(self, model: keras.Model, name: str, thresholds: tuple[float, ...] | None, epoch_before: int) -> None:
        pass

    def restore_best(self, name: str, epoch: int) -> bool:
        return True

    def forget_kept_models(self) -> None:
        pass

    def note_bad_steps(self, steps: list[tuple[int, list[str]]], why: str) -> None:
        pass

    def write_history(self, rows: list[Row], title: str, *, with_curves: bool = True) -> None:
        pass

    @contextlib.contextmanager
    def logs(self) -> Iterator[MetricsLog]:
        yield _NoLogs()


class _NoLogs(MetricsLog):
    def __init__(self) -> None:
        pass

    def write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        pass

    def write_images(self, tag: str, step: int, images: Sequence[np.ndarray]) -> None:
        pass

    def truncate(self, step: int, epochs: int) -> None:
        pass

    def close(self) -> None:
        pass


@final
class NonChiefSaver(Saver):
    """Saves nothing."""

    def __init__(self) -> None:
        self.failed: StorageError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def save_when_due(self, capture: Callable[[], Checkpoint | None]) -> None:
        pass

    def save(self, capture: Callable[[], Checkpoint | None]) -> None:
        pass

    def wait(self) -> None:
        pass
