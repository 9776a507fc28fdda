"""The hostile images of tests/images, sent to a server: each is refused with its reason, and the next is answered."""

from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2] / "images"


def module_of(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"serving_{name}", IMAGES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BOMBS = module_of("test_bombs").BOMBS
FILES = module_of("test_hostile_images")
# Larger ones exceed the limit for bodies, which has another status.
SMALL_BOMBS = [name for name, (make, _) in BOMBS.items() if len(make()) <= 6_291_456]


@pytest.mark.parametrize("name", SMALL_BOMBS)
def test_a_decompression_bomb_is_refused_with_the_reason(client, jpegs, name: str) -> None:
    make, reason = BOMBS[name]
    response = client.send(make())
    assert response.status_code == 400
    assert re.match(f"The image cannot be read: it {reason}", response.json()["error"])
    assert client.send(jpegs[0]).status_code == 200


def test_a_decompression_bomb_above_the_body_limit_is_answered_413(client) -> None:
    larger = [make() for name, (make, _) in BOMBS.items() if name not in SMALL_BOMBS]
    assert larger
    assert {client.send(data).status_code for data in larger} == {413}


@pytest.mark.parametrize("name", FILES.MAKERS)
def test_a_truncated_image_is_refused(client, name: str) -> None:
    intact = FILES.MAKERS[name](64)
    assert client.send(intact).status_code == 200
    response = client.send(intact[: len(intact) // 2])
    assert (response.status_code, response.json()["error"]) == (400, "The image cannot be read: it is truncated.")


@pytest.mark.parametrize("start", FILES.STARTS)
def test_random_bytes_are_refused(client, start: bytes) -> None:
    response = client.send(start + bytes(range(256)) * 4)
    assert response.status_code == 400
    assert re.fullmatch(r"The image cannot be read: it [^\n/]{4,200}\.", response.json()["error"])


def test_text_with_an_image_content_type_is_not_an_image(client) -> None:
    response = client.send(b"#!/bin/sh\nrm -rf /\n", "image/png")
    assert response.json()["error"] == "The image cannot be read: it is not an image."
