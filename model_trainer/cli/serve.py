"""`model-trainer serve`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Any

import typer

from model_trainer.cli.engines import EngineName
from model_trainer.cli.foreign_options import Classes, Spec, Trust, read_classes
from model_trainer.cli.prediction_options import Calibrated, Top
from model_trainer.cli.starting import announce_tensorflow
from model_trainer.errors import ConfigError
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["serve"]

MODEL_OF_SAGEMAKER = "/opt/ml/model"
DEFAULT_PORT = 8080


class Precision(StrEnum):
    """The precision of inference."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def serve(
    model: str = typer.Argument(
        MODEL_OF_SAGEMAKER,
        metavar="OUTPUT_DIR",
        help="An output folder, an .hdf5 in one, or any Keras model file with --spec and --classes.",
    ),
    host: str = typer.Option(
        "127.0.0.1", "--host", metavar="ADDRESS", help="Address to listen on; any but the loopback one needs a token."
    ),
    port: int | None = typer.Option(
        None,
        "--port",
        metavar="N",
        min=0,
        max=65_535,
        help="Port to listen on, 0 for a free one; default: 8080, or SAGEMAKER_BIND_TO_PORT.",
    ),
    token: str | None = typer.Option(
        None,
        "--token",
        metavar="TOKEN",
        help="What clients have to send as `Authorization: Bearer TOKEN`. Prefer MODEL_TRAINER_TOKEN, which other "
        "users of the machine cannot read.",
    ),
    no_token: bool = typer.Option(
        False, "--no-token", help="Accept requests without a token, from anyone who can reach the port."
    ),
    allowed_host: list[str] | None = typer.Option(
        None, "--allowed-host", metavar="NAME", help="Another name of this server in the Host header; repeatable."
    ),
    workers: int = typer.Option(
        1, "--workers", metavar="N", min=1, help="Processes that share the port, each with its own copy of the model."
    ),
    reload: bool = typer.Option(
        False, "--reload", help="Load a new model file when it appears, without dropping requests."
    ),
    engine: EngineName = typer.Option(
        EngineName.auto,
        "--engine",
        help="Inference engine: keras (TensorFlow) or openvino; auto: the faster one if it gives the same results.",
    ),
    precision: Precision = typer.Option(
        Precision.float32,
        "--precision",
        help="Dtype of the computation; bfloat16 and float16 need a passed `evaluate --precision`.",
    ),
    calibrated: Calibrated = False,
    top: Top = None,
    max_body_bytes: int | None = typer.Option(
        None, "--max-body-bytes", metavar="N", min=1, help="Larger requests are refused; default: 6291456."
    ),
    max_batch: int | None = typer.Option(
        None, "--max-batch", metavar="N", min=1, help="Maximum number of images per batch; default: 8."
    ),
    max_waiting: int | None = typer.Option(
        None,
        "--max-waiting",
        metavar="N",
        min=1,
        help="Images that may wait at a time; further ones get status 429; default: 256.",
    ),
    no_access_log: bool = typer.Option(False, "--no-access-log", help="Do not print a line of JSON for each request."),
    spec: Spec = None,
    classes: Classes = None,
    trust: Trust = False,
) -> None:
    """Serve a trained model over HTTP, with a page to try it.

    It follows SageMaker's contract for hosting: GET /ping, POST /invocations.
    Ctrl-C and SIGTERM stop it when the requests in progress are answered.

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8080/invocations
    """
    limits = {"max_body_bytes": max_body_bytes, "max_batch_size": max_batch, "max_waiting": max_waiting}
    settings: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    settings |= {
        "host": host,
        "port": _port_of_environment() if port is None else port,
        "token": _token(token, no_token),
        "allows_anonymous": no_token,
        "allowed_hosts": tuple(allowed_host or ()),
        "num_workers": workers,
        "watches_model": reload,
        "engine": engine.value,
        "precision": precision.value,
        "calibrated": calibrated,
        "top": top,
        "has_access_log": not no_access_log,
    }
    from model_trainer.serving.options import ServeOptions
    from model_trainer.serving.server import check_options, end_process
    from model_trainer.serving.server import serve as serve_model

    options = ServeOptions(**settings)
    check_options(options)
    if model == MODEL_OF_SAGEMAKER:
        print(f"Without OUTPUT_DIR the model is that of {model}, the folder of SageMaker.", file=sys.stderr)
    announce_tensorflow()
    filter_stderr_until_exit()
    end_process(serve_model(model, options, trust=trust, spec=spec, classes=read_classes(classes)))


def _token(token: str | None, no_token: bool) -> str | None:
    if token is not None and no_token:
        raise ConfigError("contradicts --no-token; pass one of them.", "--token")
    if no_token:
        return None
    token = os.environ.get("MODEL_TRAINER_TOKEN") if token is None else token
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip() and token):
        raise ConfigError(
            "should be printable ASCII characters, at least one and without spaces at its ends.", "--token"
        )
    return token


def _port_of_environment() -> int:
    text = os.environ.get("SAGEMAKER_BIND_TO_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or int(text) > 65_535:
        raise ConfigError(f"is {text!r}; expected a port, 0 to 65535.", "SAGEMAKER_BIND_TO_PORT")
    return int(text)
