"""One process of an endpoint: its model, its HTTP interface, and what it prints when it is ready."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

from model_trainer.serving.http_server import run_server
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.reload import watch_model
from model_trainer.serving.server import Model, url_of
from model_trainer.serving.service import Service
from model_trainer.training.log import plain_messages

__all__ = ["announce", "run_worker"]


def run_worker(
    model: Model,
    options: ServeOptions,
    listener: socket.socket,
    *,
    loads_first: bool = False,
    on_ready: Callable[[Service], None] | None = None,
) -> None:
    """Answers requests until a signal comes.

    Args:
        model: what is served.
        options: of the endpoint.
        listener: a listening socket; it is closed at the end.
        loads_first: whether the model is loaded before a connection is accepted.
        on_ready: called when the model is loaded; by default it prints how to call the endpoint.

    Raises:
        ModelTrainerError: the model cannot be loaded.
    """
    from model_trainer.serving.http.app import make_app
    from model_trainer.serving.http.metrics import Metrics

    metrics = Metrics()
    service = Service(
        model.path,
        options,
        trust=model.trust,
        spec=model.spec,
        classes=model.classes,
        on_batch=metrics.observe_batch,
    )
    app: Any = make_app(service, options, metrics)
    url = url_of(listener)

    def ready() -> None:
        (on_ready or (lambda service: announce(service, url, options)))(service)
        if options.watches_model:
            watch_model(service)

    with plain_messages():
        if loads_first:
            service.load()
        run_server(service, app, options, listener, on_ready=ready)


def announce(service: Service, url: str, options: ServeOptions) -> None:
    """Prints what is served, how fast, and how to call it."""
    loaded = service.loaded
    assert loaded is not None
    trained = loaded.trained
    engine = f"{trained.engine_name} in {trained.precision}"
    speed = f"{1000 * loaded.seconds_of_image:.3g} ms for an image, up to {loaded.images_per_second:.3g} images/s"
    # The token itself would stay in logs.
    token = "" if options.token is None else ' -H "Authorization: Bearer $MODEL_TRAINER_TOKEN"'
    lines = [
        f"{trained.path}: {len(trained.classes)} classes, computed with {engine}: {speed}.",
        f"Ready after {loaded.seconds:.1f} s: {url}/",
        "Open this address in a browser, or send an image:",
        f"  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'{token} {url}/invocations",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)
