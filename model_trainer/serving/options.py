"""The settings of the endpoint."""

from __future__ import annotations

import ipaddress
from typing import Literal

from pydantic import Field, SecretStr

from model_trainer.config import Config

__all__ = ["ServeOptions"]


class ServeOptions(Config):
    """The settings of `model-trainer serve`.

    Attributes:
        host, port: the address to listen on.
        token: what clients send as `Authorization: Bearer TOKEN`; None if they need none.
        allows_anonymous: `--no-token`: clients need no token, and neither Host nor Origin is checked.
        allowed_hosts: further names in the Host header, in addition to those of the loopback address.
        num_workers: processes on the port, each with a model of its own.
        watches_model: `--reload`: a new model file is picked up.
        engine: the inference engine; "auto" is the fastest that is exact.
        precision: a faster one than float32 needs a passed check; see `inference/precision_check.py`.
        calibrated: whether the logits are divided by the temperature.
        top: number of labels for each image; None is the default of the task.
        max_body_bytes: of a request; SageMaker's limit by default.
        max_images: in one request.
        max_pixels: of one image, before it is resized.
        max_batch_size: maximum number of images per batch.
        max_delay_seconds: how long a batch that is not full waits for images that are being decoded.
        max_waiting: maximum number of images in progress; further requests are answered with 429.
        num_decoders: threads that decode images; None is the number of CPU cores.
        header_seconds: time for the request line and headers of a request, on a new connection too.
        body_seconds: time for the body of a request.
        request_seconds: time for an answer, after which the request is answered with 504.
        idle_seconds: how long a connection is kept open between requests.
        drain_seconds: how long requests may take to finish after SIGTERM.
        has_access_log: whether each request is a line of JSON on standard output.
    """

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    token: SecretStr | None = None
    allows_anonymous: bool = False
    allowed_hosts: tuple[str, ...] = ()
    num_workers: int = Field(1, ge=1)
    watches_model: bool = False
    engine: Literal["auto", "keras", "openvino"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    calibrated: bool = False
    top: int | None = Field(None, ge=1)
    max_body_bytes: int = Field(6_291_456, ge=1)
    max_images: int = Field(64, ge=1)
    max_pixels: int = Field(50_000_000, ge=1)
    max_batch_size: int = Field(8, ge=1)
    max_delay_seconds: float = Field(0.002, ge=0)
    max_waiting: int = Field(256, ge=1)
    num_decoders: int | None = Field(None, ge=1)
    header_seconds: float = Field(10, gt=0)
    body_seconds: float = Field(30, gt=0)
    request_seconds: float = Field(55, gt=0)
    idle_seconds: float = Field(65, gt=0)
    drain_seconds: float = Field(25, gt=0)
    has_access_log: bool = True

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches `host`."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
