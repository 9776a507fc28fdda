"""The answers of `/invocations`, in the format that the client accepts."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.serving.answers import BadImage, Results
from model_trainer.serving.http.errors import HttpError
from model_trainer.serving.http.requests import Query

__all__ = ["CSV", "JSON", "JSON_LINES", "NPY", "HttpResponse", "encode", "error_response", "negotiate"]

JSON = "application/json"
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")
CSV = "text/csv"
NPY = "application/x-npy"
OFFERED = (JSON, *JSON_LINES, CSV, NPY)
MAX_ACCEPT_BYTES = 2000


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What is sent to the client: a status, a body and its headers."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def error_response(error: HttpError, request_id: bytes) -> HttpResponse:
    """Returns the answer for an error, which is JSON whatever the client accepts."""
    content = {"error": error.message, "request_id": request_id.decode()}
    return HttpResponse(error.status, _dump(content), JSON, error.headers)


@functools.lru_cache(maxsize=64)
def negotiate(accept: bytes, *, default: str) -> str:
    """Returns the content type of the answer (content negotiation).

    Args:
        accept: the header; empty accepts everything.
        default: the content type if several are accepted equally.

    Raises:
        HttpError: 406 if the client accepts none that can be sent, 400 if the header is too long.
    """
    if not accept:
        return default
    if len(accept) > MAX_ACCEPT_BYTES:
        raise HttpError(400, f"The Accept header is longer than {MAX_ACCEPT_BYTES:,} bytes.")
    ranges = [_read_range(each) for each in accept.decode("latin-1").lower().split(",")]
    best, best_quality = "", 0.0
    for offered in (default, *OFFERED):
        quality = _quality(offered, ranges)
        if quality > best_quality:
            best, best_quality = offered, quality
    if not best:
        raise HttpError(406, f"None of the types in Accept can be sent; accept one of {', '.join(OFFERED)}.")
    return best


def _read_range(text: str) -> tuple[str, float]:
    name, *parameters = (each.strip() for each in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return name, quality if 0 <= quality <= 1 else 0.0


def _quality(offered: str, ranges: list[tuple[str, float]]) -> float:
    """Returns the quality of the most specific range that covers a content type (RFC 9110, 12.5.1)."""
    for name in (offered, f"{offered.partition('/')[0]}/*", "*/*"):
        qualities = [quality for each, quality in ranges if each == name]
        if qualities:
            return max(qualities)
    return 0.0


def encode(results: Results, content_type: str, query: Query, *, is_single: bool, top: int | None) -> HttpResponse:
    """Returns the answer for the images of one request.

    Args:
        content_type: one that `negotiate` returned.
        is_single: whether the client sent one image rather than a list of images.
        top: number of labels for each image if the query does not give it; None is the default of the task.

    Raises:
        HttpError: 400, an image cannot be read, and it is the only one or the format cannot express that.
    """
    if content_type in (CSV, NPY):
        rows = _readable(results)
        body = _to_npy(rows) if content_type == NPY else _to_csv(rows)
        return HttpResponse(200, body, content_type)
    if is_single:
        _readable(results)
    make = _probabilities if query.output == "probabilities" else _labels(results, query.top_k or top)
    if content_type in JSON_LINES:
        lines = [
            {"error": row.reason} if isinstance(row, BadImage) else _as_object(make(row), query) for row in results.rows
        ]
        return HttpResponse(200, b"".join(_dump(line) + b"\n" for line in lines), content_type)
    if is_single:
        assert isinstance(results.rows[0], np.ndarray)
        return HttpResponse(200, _dump(_as_object(make(results.rows[0]), query)))
    # Image by image, because the encoder holds Python's lock: 64 images of 10,000 labels would stop /ping for seconds.
    predictions = [_dump({"error": row.reason} if isinstance(row, BadImage) else make(row)) for row in results.rows]
    return HttpResponse(200, b'{"predictions": [%b]}' % b", ".join(predictions))


def _as_object(prediction: Any, query: Query) -> Any:
    return prediction if query.output == "probabilities" else {"predictions": prediction}


def _labels(results: Results, top: int | None) -> Callable[[np.ndarray], list[dict[str, Any]]]:
    model = results.model
    return lambda row: model.task.decode(row, model.classes, top, model.thresholds)


def _probabilities(row: np.ndarray) -> dict[str, list[float]]:
    return {"prediction": row.tolist()}


def _readable(results: Results) -> list[np.ndarray]:
    rows: list[np.ndarray] = []
    for index, row in enumerate(results.rows):
        if isinstance(row, BadImage):
            which = "The image" if len(results.rows) == 1 else f"Image {index + 1} of {len(results.rows)}"
            reason = row.reason if row.reason.endswith(".") else f"it {row.reason}."
            raise HttpError(400, f"{which} cannot be read: {reason}")
        rows.append(row)
    return rows


def _to_csv(rows: list[np.ndarray]) -> bytes:
    return "".join(",".join(map(repr, row.tolist())) + "\n" for row in rows).encode()


def _to_npy(rows: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.stack(rows).astype(np.float32, copy=False), allow_pickle=False)
    return file.getvalue()


def _dump(value: Any) -> bytes:
    return _encode(value).encode()


_encode = json.JSONEncoder(allow_nan=False).encode
