"""schemathesis sends requests that the OpenAPI document allows or forbids, and checks the responses against it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineFinished, FatalError, NonFatalError

from model_trainer.serving.http.app import make_app
from model_trainer.serving.http.images import IMAGE_TYPES
from model_trainer.serving.http.metrics import Metrics
from model_trainer.serving.http.responses import JSON_LINES
from model_trainer.serving.options import ServeOptions

TOKEN = "secret"


def register_images(jpegs: list[bytes]) -> None:
    """Registers the bytes of images, which schemathesis cannot generate."""
    images = st.sampled_from(jpegs)
    lines = st.lists(images, min_size=1, max_size=3).map(
        lambda files: b"\n".join(b'{"b64": "%s"}' % base64.b64encode(file) for file in files)
    )
    for name in (*IMAGE_TYPES, "image/*", "application/octet-stream"):
        schemathesis.openapi.media_type(name, images)
    for name in JSON_LINES:
        schemathesis.openapi.media_type(name, lines)
    schemathesis.openapi.format("byte", images.map(lambda file: base64.b64encode(file).decode()))
    schemathesis.openapi.format("binary", images)


def failures(app: Any, *, max_examples: int, path: str | None = None) -> list[str]:
    """Runs all phases and checks of schemathesis; returns the failures."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    config = SchemathesisConfig.from_dict(
        {
            "headers": headers,
            "generation": {"max-examples": max_examples, "deterministic": True, "database": "none"},
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=headers)
    if path is not None:
        schema = schema.include(path=path)
    messages = []
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError | FatalError):
            messages.append(repr(event))
        elif isinstance(event, EngineFinished):
            messages += [f"{each.operation}: {each.title}: {each.message}" for each in event.failures]
    return messages


@pytest.fixture(scope="module")
def app(make_service, jpegs: list[bytes]) -> Any:
    register_images(jpegs)
    options = ServeOptions(token=TOKEN, allowed_hosts=("testserver",), has_access_log=False)
    return make_app(make_service(), options, Metrics())


@pytest.mark.long
def test_invocations_conforms_to_the_openapi_document(app: Any) -> None:
    assert failures(app, max_examples=10, path="/invocations") == []


@pytest.mark.slow
def test_all_routes_conform_to_the_openapi_document(app: Any) -> None:
    assert failures(app, max_examples=1000) == []
