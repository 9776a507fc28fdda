"""The images of a request body, by its Content-Type."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model_trainer.serving.answers import BadImage
from model_trainer.serving.http.errors import HttpError
from model_trainer.serving.http.instances import BadJson, Instances
from model_trainer.serving.http.multipart import read_files
from model_trainer.serving.http.responses import JSON, JSON_LINES

__all__ = ["ACCEPTED", "IMAGE_TYPES", "MULTIPART", "BodyKind", "Images", "kind_of_body", "read_images"]

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/x-image")
MULTIPART = "multipart/form-data"
ACCEPTED = (*IMAGE_TYPES, MULTIPART, JSON, JSON_LINES[0])
MAX_CONTENT_TYPE_BYTES = 500

BodyKind = Literal["image", "form", "json", "lines"]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one request.

    Attributes:
        images: encoded images, uint8 arrays of `target_size`, or for a line of JSON why it is not an image.
        is_single: whether the client sent one image rather than a list of images.
    """

    images: list[bytes | np.ndarray | BadImage]
    is_single: bool


@functools.lru_cache(maxsize=64)
def kind_of_body(content_type: bytes | None) -> tuple[BodyKind, str]:
    """Returns the kind of a body, and its content type without parameters.

    Raises:
        HttpError: 415, the content type is missing or not supported.
    """
    accepted = f"send {', '.join(ACCEPTED[:-1])} or {ACCEPTED[-1]}."
    if not content_type:
        raise HttpError(415, f"Content-Type is missing; {accepted}")
    name = content_type[:MAX_CONTENT_TYPE_BYTES].decode("latin-1").partition(";")[0].strip().lower()
    # The actual format is recognized by the image's bytes.
    if name.startswith("image/") or name in ("application/x-image", "application/octet-stream"):
        return "image", name
    if name == MULTIPART:
        return "form", name
    if name == JSON:
        return "json", name
    if name in JSON_LINES:
        return "lines", name
    raise HttpError(415, f"Content-Type {name[:80]} is not supported; {accepted}")


def read_images(
    kind: BodyKind, body: bytes, content_type: bytes, image_shape: tuple[int, int, int], max_images: int
) -> Images:
    """Returns the images of a body; takes long for large JSON.

    Raises:
        HttpError: 400 with the reason.
    """
    if not body:
        raise HttpError(400, "The body is empty; with curl: --data-binary @photo.jpg")
    if kind == "image":
        return Images([body], True)
    if kind == "form":
        files = read_files(body, content_type, max_images)
        return Images([*files], len(files) == 1)
    reader = Instances(image_shape, max_images)
    try:
        if kind == "lines":
            return Images(reader.read_lines(body), False)
        images, is_single = reader.read(body)
    except BadJson as error:
        raise HttpError(400, str(error)) from None
    return Images([*images], is_single)
