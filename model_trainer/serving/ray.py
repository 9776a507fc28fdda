"""The endpoint on several machines: a deployment for Ray Serve, which places its replicas and routes requests to them.

Each replica has a model of its own and answers as `model-trainer serve` does, with the same batching, limits and page.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model_trainer.errors import MissingExtra
from model_trainer.serving.options import ServeOptions
from model_trainer.specs import ModelSpec

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["deployment"]


class _Replica:
    """One model in one process; Ray Serve calls these methods."""

    def __init__(self, path: str, options: ServeOptions, loading: dict[str, Any]) -> None:
        # Imported here: a process that only declares the deployment does not need TensorFlow.
        from model_trainer.serving.http.app import make_app
        from model_trainer.serving.http.metrics import Metrics
        from model_trainer.serving.service import Service

        metrics = Metrics()
        self._service = Service(path, options, on_batch=metrics.observe_batch, **loading)
        self._service.load()
        self._make_app = functools.partial(make_app, self._service, options, metrics)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return without_request_id(self._make_app())

    async def check_health(self) -> None:
        """Raises RuntimeError if the model cannot compute predictions; Ray Serve then replaces the replica."""
        if not await self._service.is_healthy():
            raise RuntimeError("The model does not compute; the replica's log has the reason.")


def without_request_id(app: ASGIApp) -> ASGIApp:
    """Removes `X-Request-Id` from the answers of an app: Ray Serve gives each request an id, and adds it itself."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [each for each in message["headers"] if each[0] != b"x-request-id"]}
            await send(message)

        await app(scope, receive, send_on)

    return call


def deployment(
    path: str | os.PathLike[str],
    options: ServeOptions | None = None,
    *,
    num_replicas: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    trust: bool = False,
    spec: ModelSpec | str | None = None,
    classes: Sequence[str] | None = None,
) -> Any:
    """Returns an application for `ray.serve.run`.

    Args:
        path: of the model, on a file system that all machines can read.
        options: those of `model-trainer serve`. Ray's own options decide where it listens; `host` and `token` should
            fit them, because every replica checks the token and the Host header. `port`, `num_workers` and
            `watches_model` have no effect.
        num_replicas: processes, each with a model of its own.
        num_cpus, num_gpus: reserved for each replica; a fraction of a GPU lets replicas share one.
        trust, spec, classes: as for `load_model`.

    Raises:
        MissingExtra: Ray Serve is not installed.
        ConfigError: the options contradict one another, such as a public address without a token.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("Deployments on several machines", "ray[serve]", "ray")
    from model_trainer.serving.server import check_options

    options = options or ServeOptions()
    check_options(options)
    from ray import serve  # takes seconds

    settings = {
        "name": "model-trainer",
        "num_replicas": num_replicas,
        "ray_actor_options": {"num_cpus": num_cpus, "num_gpus": num_gpus},
        # The service answers 429 above this; Ray's own queue would let clients wait instead.
        "max_ongoing_requests": options.max_waiting,
        "graceful_shutdown_timeout_s": options.drain_seconds,
    }
    loading = {"trust": trust, "spec": spec, "classes": classes}
    return serve.deployment(**settings)(serve.ingress()(_Replica)).bind(os.fspath(path), options, loading)
