"""The endpoint on Ray Serve."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_trainer import Run, predict, train
from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.serving import ray
from model_trainer.serving.options import ServeOptions
from model_trainer.testing import free_addresses

HAS_RAY = importlib.util.find_spec("ray") is not None

# In a separate process, because Ray's threads and its connection to the cluster would remain in this one.
CLUSTER = """
import sys

import ray
from ray import serve

from model_trainer.serving.ray import deployment

ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": sys.argv[2], "port": int(sys.argv[3])})
serve.run(deployment(sys.argv[1], num_replicas=2))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"need ray\[serve\]. Run: .venv/bin/pip install -e '.\[ray\]'"):
        ray.deployment("output/run")


def test_a_public_address_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    with pytest.raises(ConfigError, match="token"):
        ray.deployment("output/run", ServeOptions(host="0.0.0.0"))


def test_the_request_id_is_left_to_ray() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-request-id", b"1"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ray.without_request_id(app)({"type": "http"}, None, send))
    assert sent[0]["headers"] == [(b"content-length", b"2")]
    assert sent[1]["body"] == b"{}"


@pytest.fixture
def address(make_run: Callable[..., Run]) -> Iterator[tuple[str, Path]]:
    """The URL of two replicas of a small model, and the folder of the model."""
    folder = train(make_run()).path
    host, port = free_addresses(1)[0].split(":")
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(folder), host, port],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    ) as cluster:  # fmt: skip
        assert cluster.stdin
        assert cluster.stdout
        next(line for line in cluster.stdout if line == "ready\n")
        yield f"http://{host}:{port}", folder
        cluster.stdin.close()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: .venv/bin/pip install -e '.[serve,ray]'")
def test_two_replicas_predict_as_predict_does(address: tuple[str, Path], colors: Path) -> None:
    url, folder = address
    image = colors / "val" / "red" / "0.png"
    (expected,) = predict(folder, [image])
    responses: list[Any] = []
    for _ in range(10):
        request = urllib.request.Request(f"{url}/invocations", image.read_bytes(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as response:
            responses.append(json.load(response)["predictions"])
    for predictions in responses:
        assert [each["label"] for each in predictions] == [each["label"] for each in expected["predictions"]]
        assert [each["probability"] for each in predictions] == pytest.approx(
            [each["probability"] for each in expected["predictions"]], abs=1e-6
        )
