"""The routes that describe the server: its health, model, metrics and OpenAPI document."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_trainer.serving.answers import NotReady
from model_trainer.serving.http.errors import from_service
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.http.openapi import openapi_document
from model_trainer.serving.http.security import Security
from model_trainer.serving.options import ServeOptions

__all__ = ["information_routes"]

PING_SECONDS = 1.5  # SageMaker waits for 2


def information_routes(service: Any, options: ServeOptions, metrics: Metrics, security: Security) -> list[Route]:
    """Returns `/ping`, `/model`, `/metrics` and `/openapi.json`."""

    async def ping(request: Request) -> Response:
        try:
            async with asyncio.timeout(PING_SECONDS):
                is_healthy = await service.is_healthy()
        except TimeoutError:
            is_healthy = False
        if is_healthy:
            return _json({"status": "ready"})
        return _json({"status": "failing" if service.status == "ready" else service.status}, 503)

    async def model(request: Request) -> Response:
        if service.trained is None:
            raise from_service(NotReady())
        return _json(_describe(service, options))

    async def render_metrics(request: Request) -> Response:
        body, content_type = metrics.render()
        return Response(body, media_type=None, headers={"content-type": content_type})

    async def openapi(request: Request) -> Response:
        # Labels and sizes are only for clients with the token, as in /model.
        is_authorized = security.has_token(request.headers.get("authorization", "").encode("latin-1"))
        return _json(openapi_document(service.trained if is_authorized else None, options))

    return [
        Route("/ping", ping),
        Route("/model", model),
        Route("/metrics", render_metrics),
        Route("/openapi.json", openapi),
    ]


def _describe(service: Any, options: ServeOptions) -> dict[str, Any]:
    trained = service.trained
    return {
        "file": trained.path.name,
        "version": service.model_version,
        "task": type(trained.task).__name__,
        "classes": list(trained.classes),
        "input_size": list(trained.spec.target_size),
        "engine": trained.engine_name,
        "precision": trained.precision,
        "is_calibrated": trained.is_calibrated,
        "limits": {
            "body_bytes": options.max_body_bytes,
            "images": options.max_images,
            "pixels": options.max_pixels,
            "request_seconds": options.request_seconds,
        },
    }


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, {"cache-control": "no-store"}, "application/json")
