"""The options of `model-trainer serve`."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from model_trainer.cli import serve as command
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError
from model_trainer.serving import server
from model_trainer.serving.options import ServeOptions


class Served(Exception):
    """Raised instead of serving, with path and options as arguments."""


def arguments_of_serve(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, ServeOptions]:
    def stop(path: str, options: ServeOptions, **rest: Any) -> int:
        raise Served(path, options)

    monkeypatch.setattr(server, "serve", stop)
    monkeypatch.setattr(command, "filter_stderr_until_exit", lambda: None)
    result = CliRunner().invoke(app, ["serve", *arguments])
    if isinstance(result.exception, Served):
        path, options = result.exception.args
        return path, options
    assert result.exception is not None
    raise result.exception


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL_TRAINER_TOKEN", "SAGEMAKER_BIND_TO_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_without_options_the_model_folder_of_sagemaker_is_served_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments_of_serve(monkeypatch) == ("/opt/ml/model", ServeOptions())


def test_options_reach_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        "output/pets --host 0.0.0.0 --port 0 --token s3cret --allowed-host a.example --allowed-host b.example "
        "--workers 3 --reload --engine openvino --precision bfloat16 --calibrated --top 2 --max-body-bytes 1000 "
        "--max-batch 4 --max-waiting 16 --no-access-log"
    )
    expected = ServeOptions(
        host="0.0.0.0", port=0, token="s3cret", allowed_hosts=("a.example", "b.example"), num_workers=3,
        watches_model=True, engine="openvino", precision="bfloat16", calibrated=True, top=2, max_body_bytes=1000,
        max_batch_size=4, max_waiting=16, has_access_log=False,
    )  # fmt: skip
    assert arguments_of_serve(monkeypatch, *arguments.split()) == ("output/pets", expected)


def test_token_and_port_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_TOKEN", "s3cret")
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "9000")
    _, options = arguments_of_serve(monkeypatch, "--host", "0.0.0.0")
    assert (options.token.get_secret_value(), options.port) == ("s3cret", 9000)


def test_no_token_overrides_a_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_TOKEN", "s3cret")
    _, options = arguments_of_serve(monkeypatch, "--host", "0.0.0.0", "--no-token")
    assert options.allows_anonymous
    assert options.token is None


def test_a_public_address_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`--host` is 0.0.0.0, which other machines can reach"):
        arguments_of_serve(monkeypatch, "--host", "0.0.0.0")


def test_a_token_contradicts_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`--token` contradicts --no-token"):
        arguments_of_serve(monkeypatch, "--token", "s3cret", "--no-token")


@pytest.mark.parametrize("token", ["", " s3cret", "s3crét"])
def test_a_token_that_is_invalid_in_a_header_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`--token` should be printable ASCII characters"):
        arguments_of_serve(monkeypatch, "--token", token)


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_an_invalid_port_in_the_environment_is_named(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", port)
    with pytest.raises(ConfigError, match="`SAGEMAKER_BIND_TO_PORT` is .*; expected a port"):
        arguments_of_serve(monkeypatch)
