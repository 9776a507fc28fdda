"""Images in JSON: base64, or nested arrays of pixels, alone, in a list, or one on each line.

The standard library's decoder would build millions of Python objects for 6 MB of `[],[],[],` and hold the interpreter's
lock all that time. So its parts are called here for the levels that a request may have, with a limit at each, and each
row of pixels is converted to an array at once.
"""

from __future__ import annotations

import binascii
import io
import json
import json.decoder
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from model_trainer.serving.answers import BadImage

__all__ = ["BadJson", "Instances"]

BASE64_CHUNK = 2**18  # characters decoded at a time, with other threads in between
MAX_MEMBERS = 16  # of an object
CHARACTERS_PER_NUMBER = 64  # of a row, with whitespace
SHOWN = 60  # characters of the client's text in a message

Scan = Callable[[str, int], tuple[Any, int]]
_parse_array = json.decoder.JSONArray  # type: ignore[attr-defined]
_parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]


class BadJson(ValueError):
    """A body is not JSON, or not what a request may contain; the message is a sentence for the client."""


def _no_constant(name: str) -> None:
    raise BadJson(f"{name} is not JSON.")


_scan_plain: Scan = json.JSONDecoder(parse_constant=_no_constant).scan_once  # type: ignore[attr-defined]


class Instances:
    """Reads the images of JSON bodies.

    Args:
        image_shape: height, width, channels of an array of pixels.
        max_images: in one body.

    Example:
        >>> reader = Instances((1, 2, 3), max_images=2)
        >>> reader.read(b'{"instances": [{"b64": "/9j/"}, [[[1, 2, 3], [4, 5, 6]]]]}')
        ([b'\\xff\\xd8\\xff', array([[[1, 2, 3],
                [4, 5, 6]]], dtype=uint8)], False)
    """

    def __init__(self, image_shape: tuple[int, int, int], max_images: int) -> None:
        self._shape = image_shape
        self._max_images = max_images
        _, width, channels = image_shape
        self._max_row_characters = CHARACTERS_PER_NUMBER * width * channels + 1000

    def read(self, body: bytes) -> tuple[list[bytes | np.ndarray], bool]:
        """Returns the images of a body, and whether it is one image, not in a list.

        Raises:
            BadJson: with the reason.
        """
        value = self._document(body, self._scan_top)
        if not (isinstance(value, dict) and "instances" in value):
            return [_to_image(value)], True
        if len(value) > 1 and value.keys() - {"instances", "signature_name"}:
            raise BadJson('Beside "instances" there should be nothing else in the object.')
        instances = value["instances"]
        if not isinstance(instances, list) or not instances:
            raise BadJson('"instances" should be a list of one or more images.')
        images = []
        for index, instance in enumerate(instances):
            try:
                images.append(_to_image(instance))
            except BadJson as error:
                raise BadJson(f"instances[{index}]: {error}") from None
        return images, False

    def read_lines(self, body: bytes) -> list[bytes | np.ndarray | BadImage]:
        """Returns the image of each line that is not blank; one that cannot be read does not affect the others.

        Raises:
            BadJson: there is no line, or there are too many.
        """
        images: list[bytes | np.ndarray | BadImage] = []
        for line in self._lines(body):
            try:
                images.append(_to_image(self._document(line, self._scan_instance)))
            except BadJson as error:
                images.append(BadImage(str(error)))
        return images

    def _lines(self, body: bytes) -> Iterator[bytes]:
        count = 0
        for line in io.BytesIO(body):
            if line.isspace():
                continue
            count += 1
            if count > self._max_images:
                raise BadJson(f"There are more than {self._max_images} lines, the limit of one request.")
            yield line
        if not count:
            raise BadJson('The body should contain one or more lines such as {"b64": "..."}.')

    def _document(self, body: bytes, scan: Scan) -> Any:
        try:
            text = str(body, "utf-8-sig")
            start = _after_whitespace(text, 0)
            value, end = scan(text, start)
            if _after_whitespace(text, end) != len(text):
                raise BadJson(f"The JSON should end at character {end}; there is more after it.")
        except BadJson:
            raise
        except UnicodeDecodeError:
            raise BadJson("The body is not UTF-8.") from None
        except StopIteration as error:
            raise BadJson(f"The body is not JSON: expecting a value at character {error.value}.") from None
        except json.JSONDecodeError as error:
            raise BadJson(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
        except RecursionError:
            raise BadJson("The JSON is nested too deeply.") from None
        except (ValueError, IndexError):  # a number of thousands of digits; an object that is not closed
            raise BadJson("The body is not JSON that can be read.") from None
        return value

    def _scan_top(self, text: str, start: int) -> tuple[Any, int]:
        if text[start : start + 1] == "{":
            return _object(text, start, self._scan_member)
        return self._scan_instance(text, start)

    def _scan_member(self, text: str, start: int) -> tuple[Any, int]:
        """Reads a value of the outermost object: the list of instances, or what an image consists of."""
        if text[start : start + 1] == "[":
            count = self._max_images
            return _array(text, start, self._scan_instance, count, f"{count} images, the limit of one request")
        return _scan_inner(text, start)

    def _scan_instance(self, text: str, start: int) -> tuple[Any, int]:
        first = text[start : start + 1]
        if first == "{":
            return _object(text, start, _scan_inner)
        if first != "[":
            return _scan_plain(text, start)
        rows, end = _array(text, start, self._scan_row, self._shape[0], f"{self._shape[0]} rows")
        if len(rows) != self._shape[0]:
            raise BadJson(f"{self._expected()}; received {len(rows)} rows.")
        return np.stack(rows), end

    def _scan_row(self, text: str, start: int) -> tuple[np.ndarray, int]:
        # Limited, so that no text of the client occupies the interpreter for longer than a valid row.
        window = text[start : start + self._max_row_characters]
        try:
            values, end = _scan_plain(window, 0)
            row = np.array(values)
        except (OverflowError, RecursionError, StopIteration, ValueError):
            raise BadJson(f"{self._expected()}; a row of it cannot be read.") from None
        # NumPy converts true to 1 in a list that also has numbers.
        has_booleans = window.find("true", 0, end) >= 0 or window.find("false", 0, end) >= 0
        if row.shape != self._shape[1:] or row.dtype.kind not in "iuf" or has_booleans:
            raise BadJson(f"{self._expected()}; a row of it has the shape {row.shape} or is not numeric.")
        if not ((row >= 0) & (row <= 255)).all() or (row.dtype.kind == "f" and (row % 1).any()):
            raise BadJson(f"{self._expected()}; received other numbers.")
        return row.astype(np.uint8), start + end

    def _expected(self) -> str:
        height, width, channels = self._shape
        return f"An array should be {height} × {width} × {channels} whole numbers from 0 to 255"


def _scan_inner(text: str, start: int) -> tuple[Any, int]:
    if text[start : start + 1] == "{":
        return _object(text, start, _scan_scalar)
    return _scan_scalar(text, start)


def _scan_scalar(text: str, start: int) -> tuple[Any, int]:
    if text[start : start + 1] in ("[", "{"):
        raise BadJson('An image should be {"b64": "..."} or a nested array; received something nested deeper.')
    return _scan_plain(text, start)


def _object(text: str, start: int, scan: Scan) -> tuple[dict[str, Any], int]:
    limited = _limited(scan, MAX_MEMBERS, f"An object has more than {MAX_MEMBERS} members.")
    return _parse_object((text, start + 1), True, limited, None, _without_duplicates)


def _array(text: str, start: int, scan: Scan, max_count: int, limit: str) -> tuple[list[Any], int]:
    return _parse_array((text, start + 1), _limited(scan, max_count, f"There are more than {limit}."))


def _limited(scan: Scan, max_count: int, message: str) -> Scan:
    """Returns a `scan` that raises BadJson with the message when it is called more than `max_count` times."""
    count = 0

    def scan_next(text: str, start: int) -> tuple[Any, int]:
        nonlocal count
        count += 1
        if count > max_count:
            raise BadJson(message)
        return scan(text, start)

    return scan_next


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadJson("An object has a name more than once.")
    return result


def _after_whitespace(text: str, start: int) -> int:
    return json.decoder.WHITESPACE.match(text, start).end()  # type: ignore[attr-defined]


def _to_image(value: Any) -> bytes | np.ndarray:
    """Returns the encoded image or the array that a decoded instance contains."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict) and len(value) == 1 and "b64" not in value:
        value = next(iter(value.values()))  # {"image": {"b64": ...}}, as TensorFlow Serving names its inputs
    if not (isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)):
        raise BadJson('An image should be {"b64": "..."}, {"NAME": {"b64": "..."}} or a nested array of pixels.')
    return _from_base64(value["b64"])


def _from_base64(text: str) -> bytes:
    try:
        chunks = [
            binascii.a2b_base64(text[start : start + BASE64_CHUNK], strict_mode=True)
            for start in range(0, len(text), BASE64_CHUNK)
        ]
    except ValueError:  # binascii.Error, or characters outside ASCII
        raise BadJson('"b64" should be base64 (RFC 4648, with padding, without line breaks).') from None
    return b"".join(chunks)
