"""Unexpected JSON is refused with a reason, quickly and with little memory."""

from __future__ import annotations

import base64
import json
import tracemalloc

import numpy as np
import pytest

from model_trainer.serving.http.instances import BadJson, Instances

MEGABYTE = 2**20
SMALL = [[[1, 2, 3], [4, 5, 6]]]  # (1, 2, 3)
PIXEL = b'{"instances":[[[[1,2,3],[4,5,%s]]]]}'


@pytest.fixture
def reader() -> Instances:
    return Instances((1, 2, 3), max_images=3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "expecting a value at character 0"),
        (b"{", "is not JSON"),
        (b"{}", "An image should be"),
        (b"[]", "received 0 rows"),
        (b"null", "An image should be"),
        (b'"text"', "An image should be"),
        (b"{} {}", "there is more after it"),
        (b"\xff\xfe{", "is not UTF-8"),
        (b"NaN", "NaN is not JSON"),
        (b'{"instances": NaN}', "NaN is not JSON"),
        (b'{"instances": [-Infinity]}', "-Infinity is not JSON"),
        (b'{"instances": 5}', '"instances" should be a list of one or more images'),
        (b'{"instances": []}', '"instances" should be a list of one or more images'),
        (b'{"instances": {"b64": "AA=="}}', '"instances" should be a list'),
        (b'{"instances": [5]}', "instances\\[0\\]: An image should be"),
        (b'{"instances": ["AA=="]}', "instances\\[0\\]: An image should be"),
        (b'{"instances": [{"b64": "AA=="}], "parameters": {}}', "nothing else"),
        (b'{"b64": "AA==", "b64": "AA=="}', "a name more than once"),
        (b'{"instances": [{"b64": "AA=="}], "instances": []}', "a name more than once"),
        (b'{"b64": 5}', "An image should be"),
        (b'{"b64": "AA==", "more": 1}', "An image should be"),
        (b'{"a": {"b64": "AA=="}, "b": {"b64": "AA=="}}', "An image should be"),
        (b'{"a": {"b": {"b64": "AA=="}}}', "nested deeper"),
        (b'{"b64": "AA="}', "should be base64"),
        (b'{"b64": "A\\nA=="}', "should be base64"),
        (b'{"b64": "_-=="}', "should be base64"),
        (b'{"b64": "\xc3\xa9"}', "should be base64"),
        (b'{"b64": "\\ud800"}', "should be base64"),
        (b'{"instances": [1, 2, 3, 4]}', "more than 3 images, the limit"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"1" * 5000, "is not JSON that can be read"),
        (PIXEL % b"256", "whole numbers from 0 to 255; received other numbers"),
        (PIXEL % b"-1", "received other numbers"),
        (PIXEL % b"0.5", "received other numbers"),
        (PIXEL % b"1e400", "received other numbers"),
        (PIXEL % (b"1" * 30), "not numeric"),
        (PIXEL % (b"1" * 5000), "cannot be read"),
        (PIXEL % b"true", "not numeric"),
        (PIXEL % b'"6"', "not numeric"),
        (PIXEL % b"null", "not numeric"),
        (PIXEL % b"6,7", "cannot be read"),
        (PIXEL % b"[6]", "cannot be read"),
        (b'{"instances": [[[[1, 2], [3, 4]]]]}', "has the shape \\(2, 2\\)"),
        (b'{"instances": [[[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]]]}', "more than 1 rows"),
        (b'{"instances": [[1, 2, 3]]}', "is not numeric"),
        (b'{"instances": [[[]]]}', "has the shape"),
        (b"{" + b",".join(b'"%d": 1' % number for number in range(20)) + b"}", "more than 16 members"),
    ],
)
def test_unexpected_json_is_refused_with_the_reason(reader: Instances, body: bytes, reason: str) -> None:
    with pytest.raises(BadJson, match=reason):
        reader.read(body)


@pytest.mark.parametrize(
    "text", ['{"instances": [%s]}', '\ufeff{"instances": [%s]}', '\n{ "instances" :[\t%s ] ,"signature_name":"x"}\r\n']
)
def test_json_may_have_any_whitespace_and_number_format(reader: Instances, text: str) -> None:
    for array in (json.dumps(SMALL), json.dumps(SMALL, indent=4), "[[[1.0, 2, 3e0], [4, 5, 6]]]"):
        (image,), is_single = reader.read((text % array).encode())
        np.testing.assert_array_equal(image, np.array(SMALL, np.uint8), strict=True)
        assert not is_single


@pytest.mark.parametrize("size", [0, 1, 2, 3, 2**18 * 3 // 4 - 1, 2**18 * 3 // 4, 2**19 + 1])
def test_base64_of_any_length_is_decoded(reader: Instances, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert reader.read(json.dumps({"b64": base64.b64encode(data).decode()}).encode()) == ([data], True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[' + b"[]," * (2 * MEGABYTE) + b"1]}",
        b'{"instances":[' + b"{}," * (2 * MEGABYTE) + b"1]}",
        b'{"instances":[' + b"0," * (3 * MEGABYTE) + b"1]}",
        b'{"instances":[[[' + b"[1,2,3]," * MEGABYTE + b"1]]]}",
        b'{"instances":[[[' + b"[]," * (2 * MEGABYTE) + b"1]]]}",
        b'{"instances":' + b"[" * (6 * MEGABYTE),
        b'{"a":' * MEGABYTE,
    ],
    ids=["arrays", "objects", "numbers", "pixels", "empty pixels", "deep arrays", "deep objects"],
)
def test_six_megabytes_of_hostile_json_take_little_memory(body: bytes) -> None:
    reader = Instances((224, 224, 3), max_images=64)
    tracemalloc.start()
    try:
        with pytest.raises(BadJson):
            reader.read(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(body)  # the text; json.loads takes 15 to 40 times as much


def test_the_number_of_json_lines_is_limited(reader: Instances) -> None:
    with pytest.raises(BadJson, match="more than 3 lines"):
        reader.read_lines(b"1\n" * 4)
    with pytest.raises(BadJson, match="one or more lines"):
        reader.read_lines(b"\n \r\n")
    assert len(reader.read_lines(b"\n1\r\n\r\n2\n3")) == 3
