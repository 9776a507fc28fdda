"""`model-trainer serve` from its first message to its exit code, as a real process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.model_files.load import load_model
from model_trainer.pipeline.image import ImageReader
from model_trainer.serving import server as server_module
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import bind, serve, url_of
from model_trainer.serving.service import Service
from model_trainer.serving.worker import announce
from model_trainer.specs import ModelSpec

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def endpoint(start_endpoint: Callable[..., Any]) -> Any:
    return start_endpoint()


@contextlib.contextmanager
def half_sent(url: str, body: bytes) -> Iterator[socket.socket]:
    """A request of which only half of the body has been sent, so that the server waits for the rest."""
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body[: len(body) // 2])
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # the application has begun to read the body
        yield connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65_536):
        received += data
    return received


def test_the_endpoint_answers_with_the_probabilities_of_the_model(
    endpoint: Any, pets: Path, pets_spec: ModelSpec, encode: Callable[..., bytes]
) -> None:
    trained = load_model(pets, spec=pets_spec, classes=("cat", "dog", "owl"))
    expected = trained.probabilities(ImageReader(trained.spec)(encode())[None])[0]
    answer = endpoint.predict(encode()).raise_for_status().json()["predictions"]
    probabilities = {each["label"]: each["probability"] for each in answer}
    np.testing.assert_allclose([probabilities[name] for name in trained.classes], expected, rtol=1e-5)


def test_ping_is_answered_200_when_the_endpoint_is_ready(endpoint: Any) -> None:
    assert httpx.get(f"{endpoint.url}/ping").status_code == 200


def test_the_endpoint_prints_its_model_its_speed_and_a_command_to_try(endpoint: Any, pets: Path) -> None:
    assert endpoint.wait_for(rf"{pets}: 3 classes, computed with keras in float32: [\d.]+ ms for an image")
    assert endpoint.wait_for(rf"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' {endpoint.url}/invocations")


def test_the_command_to_try_uses_the_token_without_showing_it(
    pets: Path, pets_spec: ModelSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ServeOptions(token="s3cret", engine="keras", max_batch_size=1)
    service = Service(pets, options, spec=pets_spec, classes=("cat", "dog", "owl"))
    service.load()
    announce(service, "http://127.0.0.1:8080", options)
    service.close()
    printed = capsys.readouterr().err
    assert '-H "Authorization: Bearer $MODEL_TRAINER_TOKEN" http://127.0.0.1:8080/invocations' in printed
    assert "s3cret" not in printed


def test_sigterm_lets_a_request_in_progress_finish_and_exits_with_0(
    start_endpoint: Callable[..., Any], endpoint: Any, encode: Callable[..., bytes]
) -> None:
    url, body = endpoint.url, encode()
    host, port = url.removeprefix("http://").split(":")
    with half_sent(url, body) as connection, socket.create_connection((host, int(port)), timeout=60) as idle:
        endpoint.process.terminate()
        assert idle.recv(1) == b""  # the server is draining
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/ping")
        connection.sendall(body[len(body) // 2 :])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in answer
    assert endpoint.wait() == 0
    assert "Traceback" not in endpoint.messages
    assert endpoint.messages.count("Stopping when the requests in progress are answered") == 1


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_server_at_once(
    start_endpoint: Callable[..., Any], encode: Callable[..., bytes]
) -> None:
    endpoint = start_endpoint()
    with half_sent(endpoint.url, encode()):
        host, port = endpoint.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as idle:
            os.killpg(endpoint.process.pid, signal.SIGINT)
            assert idle.recv(1) == b""
        os.killpg(endpoint.process.pid, signal.SIGINT)
        assert endpoint.wait() == 130


@pytest.mark.slow
def test_sigterm_while_the_model_is_being_loaded_exits_with_0(start_endpoint: Callable[..., Any]) -> None:
    endpoint = start_endpoint()
    endpoint.wait_for("Loading ")
    endpoint.process.terminate()
    assert endpoint.wait() == 0


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_gives_one_message_and_exit_code_2(
    start_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "pets.h5").write_bytes(b"no model")
    endpoint = start_endpoint(model=tmp_path / "pets.h5")
    assert endpoint.wait() == 2
    assert endpoint.messages.count("Error: ") == 1
    assert "Traceback" not in endpoint.messages


def test_a_port_in_use_is_named() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"`--port` is {port}, which another process uses at 127.0.0.1"):
            bind("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_named() -> None:
    with pytest.raises(ConfigError, match="`--host` is 192.0.2.1, where this process cannot listen"):
        bind("192.0.2.1", 0)


def test_the_url_for_all_addresses_is_the_loopback_address() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.example.com"])
def test_a_public_address_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="which other machines can reach, so clients need a token"):
        serve("pets.h5", ServeOptions(host=host, port=0))


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client"])
def test_a_missing_extra_names_the_command(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = server_module.importlib.import_module

    def fail(name: str) -> Any:
        if name == missing:
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(server_module.importlib, "import_module", fail)
    with pytest.raises(ModelTrainerError, match=r"Run: .venv/bin/pip install -e '.\[serve\]'"):
        serve("pets.h5", ServeOptions(port=0))
