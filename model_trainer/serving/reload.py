"""`--reload`: a new model file is loaded beside the old one, which answers until the new one is warm."""

from __future__ import annotations

import threading

from absl import logging

from model_trainer.errors import ModelTrainerError
from model_trainer.serving.loading import FileState, state_of
from model_trainer.serving.service import Service

__all__ = ["watch_model"]

POLL_SECONDS, REMOTE_POLL_SECONDS = 1.0, 10.0  # each poll of an object store is several requests


def watch_model(service: Service, poll_seconds: float | None = None) -> threading.Event:
    """Starts a thread that loads the service's model again when its file has changed.

    It polls every `poll_seconds`, by default every second, and every 10 seconds in an object store. A file that is
    still being written is not loaded before it is the same in two polls. If the new file cannot be loaded, that is
    logged, and the old model continues to answer.

    Returns:
        An event; when it is set, the thread ends.
    """
    if poll_seconds is None:
        poll_seconds = REMOTE_POLL_SECONDS if "://" in str(service.path) else POLL_SECONDS
    stop = threading.Event()
    threading.Thread(target=_watch, args=(service, poll_seconds, stop), name="reload", daemon=True).start()
    return stop


def _watch(service: Service, poll_seconds: float, stop: threading.Event) -> None:
    previous: FileState = ()
    rejected: FileState = ()  # of a file that cannot be loaded, which is not tried again
    while not stop.wait(poll_seconds):
        state = state_of(service.path)
        is_unchanged, previous = state == previous, state
        loaded = service.loaded
        if not state or not is_unchanged or state == rejected or (loaded is not None and state == loaded.file_state):
            continue
        version = service.model_version
        rejected = state
        try:
            service.load()
        except ModelTrainerError as error:
            logging.error("The new model cannot be loaded; the old one continues to answer: %s", error)
        except Exception:  # noqa: BLE001  # whatever is wrong with the new model, the old one works
            logging.exception("The new model cannot be loaded; the old one continues to answer.")
        else:
            logging.info("A new model answers: %s instead of %s.", service.model_version, version)
            rejected = ()
