"""`--reload`: a new model file is loaded beside the old one, which answers until the new one is warm."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from absl import logging

from model_trainer.errors import ModelTrainerError
from model_trainer.model_files.load import find_model_file
from model_trainer.serving.service import Service

__all__ = ["watch_model"]

POLL_SECONDS = 1.0

State = tuple[object, ...]


def watch_model(service: Service, poll_seconds: float = POLL_SECONDS) -> threading.Event:
    """Starts a thread that loads the service's model again when its file has changed.

    A file that is still being written is left alone until it does not change from one look to the next. If the new
    file cannot be loaded, that is logged, and the old model continues to answer.

    Returns:
        An event that ends the thread.
    """
    stop = threading.Event()
    threading.Thread(target=_watch, args=(service, poll_seconds, stop), name="reload", daemon=True).start()
    return stop


def _watch(service: Service, poll_seconds: float, stop: threading.Event) -> None:
    loaded = previous = _state_of(service.path)
    while not stop.wait(poll_seconds):
        state = _state_of(service.path)
        is_still, previous = state == previous, state
        if state == loaded or not is_still or not state:
            continue
        loaded = state
        version = service.model_version
        try:
            service.load()
        except ModelTrainerError as error:
            logging.error("The new model cannot be loaded; the old one continues to answer: %s", error)
        except Exception:  # noqa: BLE001  # whatever is wrong with the new one, the old one is not
            logging.exception("The new model cannot be loaded; the old one continues to answer.")
        else:
            logging.info("A new model answers: %s instead of %s.", service.model_version, version)


def _state_of(path: str | os.PathLike[str]) -> State:
    """What changes with the model at `path`; empty if there is none at the moment."""
    try:
        file = Path(find_model_file(path))
        states: list[object] = [str(file), _stat(file)]
    except (OSError, ModelTrainerError):
        return ()
    description = file.with_name("model_spec.json")
    return (*states, _stat(description) if description.exists() else None)


def _stat(file: Path) -> State:
    info = file.stat()
    return info.st_ino, info.st_size, info.st_mtime_ns
