"""The OpenAPI document of the HTTP interface: every route, content type, parameter and status."""

from __future__ import annotations

from typing import Any

from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.http.images import IMAGE_TYPES, MULTIPART
from model_trainer.serving.http.requests import MAX_TOP_K
from model_trainer.serving.http.responses import CSV, JSON, JSON_LINES, NPY
from model_trainer.serving.options import ServeOptions
from model_trainer.version import __version__

__all__ = ["openapi_document"]

Schema = dict[str, Any]
BINARY: Schema = {"type": "string", "format": "binary"}
REASONS = {
    400: "An image cannot be read, or the request is not what is expected.",
    401: "The token is missing or wrong.",
    403: "The Host or Origin header is not that of this server.",
    405: "The path does not support the method.",
    406: "No type in Accept can be sent.",
    408: "The body was not complete in time.",
    413: "The body is too large; the connection is closed.",
    415: "The Content-Type is not supported.",
    429: "Too many images are being computed; see Retry-After.",
    500: "Inference failed.",
    501: "The network has no attribution maps.",
    503: "The model is not ready.",
    504: "The answer took too long.",
}


def openapi_document(trained: TrainedModel | None, options: ServeOptions) -> Schema:
    """Returns the OpenAPI 3.1 document.

    Args:
        trained: the model, which gives the shape of arrays and the labels; None leaves them open.
        options: the limits, and whether there is a token.
    """
    is_protected = options.token is not None
    paths = {
        "/invocations": {"post": _invocations(options)},
        "/attribution": {"post": _attribution(trained)},
        "/ping": {"get": _ping()},
        "/model": {"get": _get("What the server knows of its model.", JSON, _ref("Model"), (401, 503))},
        "/metrics": {"get": _get("Metrics in Prometheus' format.", "text/plain", {"type": "string"}, (401,))},
        "/openapi.json": {"get": _get("This document.", JSON, {"type": "object"}, ())},
        "/": {"get": _get("A page to try the model.", "text/html", {"type": "string"}, ())},
    }
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Trainer",
            "version": __version__,
            "description": "Predictions of one trained image model.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(trained, options)},
    }
    for path, item in paths.items():
        for operation in item.values():
            if not is_protected:
                operation["responses"].pop("401", None)
            elif path in ("/invocations", "/model", "/metrics", "/attribution"):
                operation["security"] = [{"token": []}]
    if is_protected:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _invocations(options: ServeOptions) -> Schema:
    lines: Schema = {"type": "string", "description": "One Instance in each line."}
    form = {
        "type": "object",
        "minProperties": 1,
        "properties": {"image": BINARY},
        "additionalProperties": {
            "anyOf": [BINARY, {"type": "array", "items": BINARY, "minItems": 1, "maxItems": options.max_images}]
        },
        "description": "The files of all fields; fields that are not files are ignored.",
    }
    answer_lines: Schema = {"type": "string", "description": "One LabelsOfImage, Probabilities or ImageError a line."}
    answers = {
        JSON: {"schema": _ref("Predictions")},
        **{name: {"schema": answer_lines} for name in JSON_LINES},
        CSV: {"schema": {"type": "string", "description": "A row of all probabilities for each image, no header."}},
        NPY: {"schema": {**BINARY, "description": "float32 (images, classes)"}},
    }
    return {
        "summary": "Predicts the labels of one or more images.",
        "operationId": "invocations",
        "parameters": [
            {
                "name": "top_k",
                "in": "query",
                "description": "Number of labels for each image. Without it: the default of the server or the task; "
                "for several labels at once those that reach their thresholds.",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
            },
            {
                "name": "output",
                "in": "query",
                "description": "The most probable labels, or the probabilities of all classes in their order.",
                "schema": {"type": "string", "enum": ["labels", "probabilities"], "default": "labels"},
            },
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {options.max_body_bytes:,} bytes and {options.max_images} images. What an image "
            "is, its bytes tell; every image/* is accepted.",
            "content": {
                **{name: {"schema": BINARY} for name in (*IMAGE_TYPES, "image/*", "application/octet-stream")},
                MULTIPART: {"schema": form},
                JSON: {"schema": {"anyOf": [_ref("Instances"), _ref("Instance")]}},
                **{name: {"schema": lines} for name in JSON_LINES},
            },
        },
        "responses": {
            "200": {"description": "The predictions, in the type that Accept prefers.", "content": answers},
            **_errors(400, 401, 403, 406, 408, 413, 415, 429, 500, 503, 504),
        },
    }


def _ping() -> Schema:
    content = {JSON: {"schema": _ref("Status")}}
    return {
        "summary": "Whether the model answers.",
        "responses": {
            "200": {"description": "It does.", "content": content},
            "503": {"description": "It does not.", "content": content},
            **_errors(400, 403, 413),
        },
    }


def _attribution(trained: TrainedModel | None) -> Schema:
    labels = {} if trained is None else {"enum": list(dict.fromkeys(trained.classes))}
    return {
        "summary": "Draws which regions of an image support a label.",
        "parameters": [
            {
                "name": "label",
                "in": "query",
                "description": "A class of the model; without it the most probable one.",
                "schema": {"type": "string", **labels},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {name: {"schema": BINARY} for name in (*IMAGE_TYPES, "image/*", "application/octet-stream")},
        },
        "responses": {
            "200": {"description": "The map over the image.", "content": {"image/png": {"schema": BINARY}}},
            **_errors(400, 401, 403, 408, 413, 415, 429, 500, 501, 503, 504),
        },
    }


def _get(summary: str, content_type: str, schema: Schema, errors: tuple[int, ...]) -> Schema:
    answer = {"description": summary, "content": {content_type: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, **_errors(400, 403, 413, *errors)}}


def _errors(*statuses: int) -> Schema:
    return {
        str(status): {"description": REASONS[status], "content": {JSON: {"schema": _ref("Error")}}}
        for status in statuses
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: dict[str, Schema], **keywords: Any) -> Schema:
    return {
        "type": "object",
        "properties": required,
        "required": list(required),
        "additionalProperties": False,
        **keywords,
    }


def _list(items: Schema, **keywords: Any) -> Schema:
    return {"type": "array", "items": items, **keywords}


def _schemas(trained: TrainedModel | None, options: ServeOptions) -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    probability: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    pixels: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
    for size in reversed((None, None, None) if trained is None else trained.spec.target_size):
        pixels = _list(pixels, **({} if size is None else {"minItems": size, "maxItems": size}))
    labels = _list(_ref("Label"))
    return {
        "Base64": _object({"b64": {"type": "string", "contentEncoding": "base64", "format": "byte", "minLength": 1}}),
        "Named": {
            "type": "object",
            "description": "As TensorFlow Serving names its inputs.",
            "minProperties": 1,
            "maxProperties": 1,
            "propertyNames": {"not": {"enum": ["b64", "instances"]}},
            "additionalProperties": _ref("Base64"),
        },
        "Pixels": {**pixels, "description": "(height, width, channels) of the model, from 0 to 255."},
        "Instance": {"anyOf": [_ref("Base64"), _ref("Named"), _ref("Pixels")]},
        "Instances": {
            "type": "object",
            "properties": {
                "instances": _list(_ref("Instance"), minItems=1, maxItems=options.max_images),
                "signature_name": {"type": "string", "description": "TensorFlow Serving's; ignored."},
            },
            "required": ["instances"],
            "additionalProperties": False,
        },
        "Label": _object({"label": text, "probability": probability}),
        "LabelsOfImage": _object({"predictions": labels}),
        "Probabilities": _object({"prediction": _list(probability)}),
        "ImageError": _object({"error": {"type": "string", "description": "Why the image cannot be read."}}),
        "Predictions": {
            "anyOf": [
                _ref("LabelsOfImage"),
                _ref("Probabilities"),
                _object({"predictions": _list({"anyOf": [labels, _ref("Probabilities"), _ref("ImageError")]})}),
            ]
        },
        "Status": _object({"status": {"type": "string", "enum": ["ready", "starting", "failing", "stopping"]}}),
        "Model": _object(
            {
                "file": text,
                "version": text,
                "task": text,
                "classes": _list(text),
                "input_size": _list({"type": "integer"}, minItems=3, maxItems=3),
                "engine": text,
                "precision": text,
                "is_calibrated": {"type": "boolean"},
                "limits": {"type": "object", "additionalProperties": {"type": "number"}},
            }
        ),
        "Error": _object({"error": text, "request_id": text}),
    }
