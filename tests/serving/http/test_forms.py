"""Multipart forms: which parts are files, and which forms are refused."""

from __future__ import annotations

import pytest

HEAD = b'--B\r\nContent-Disposition: form-data; name="a"'


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def file(content: bytes, headers: bytes = b'Content-Disposition: form-data; name="a"; filename="x.jpg"') -> bytes:
    return headers + b"\r\n\r\n" + content


def send(client, body: bytes, content_type: str = "multipart/form-data; boundary=B"):
    return client.send(body, content_type)


@pytest.mark.parametrize(
    "headers",
    [
        b'Content-Disposition: form-data; name="a"; filename=""',
        b'content-disposition: form-data; name="../../etc/passwd"; filename="../../etc/passwd"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Type: image/png',
        b"Content-Type: application/octet-stream",
    ],
)
def test_a_part_with_a_file_name_or_an_image_type_is_a_file(client, jpegs, headers: bytes) -> None:
    assert send(client, form(file(jpegs[0], headers))).status_code == 200


def test_a_text_field_is_not_a_file(client, service, jpegs) -> None:
    text = file(b"hello", b'Content-Disposition: form-data; name="comment"')
    assert send(client, form(text, file(jpegs[0]), text)).status_code == 200
    assert [len(images) for images in service.received] == [1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "The body is empty"),
        (b"text", "cannot be read as multipart"),
        (form(), "contains no file|cannot be read"),
        (form(file(b"x", b'Content-Disposition: form-data; name="a"')), "contains no file"),
        (form(file(b"x"), end=b""), "is not complete"),
        (form(file(b"x")).replace(b"--B", b"--C"), "cannot be read as multipart"),
        (form(*[file(b"x")] * 65), "more than 64 files"),
        (form(*[file(b"x", b'Content-Disposition: form-data; name="a"')] * 101), "more than 100 fields"),
        (form(file(b"x", b"X: " + b"y" * 5000)), "cannot be read as multipart"),
        (form(file(b"x", b"\r\n".join([b"X: y"] * 17))), "cannot be read as multipart"),
        (form(file(b"x", b"X" * 5000 + b": y")), "cannot be read as multipart"),
        (b"--B\r\n" * 100_000, "cannot be read|not complete|fields"),
    ],
)
def test_an_invalid_form_is_refused_with_the_reason(client, body: bytes, reason: str) -> None:
    response = send(client, body)
    assert response.status_code == 400
    assert any(each in response.json()["error"] for each in reason.split("|"))


@pytest.mark.parametrize("parameters", ["", "; boundary=", "; boundary=" + "x" * 300, "; boundary", "; charset=x"])
def test_a_form_without_a_usable_boundary_is_refused(client, jpegs, parameters: str) -> None:
    assert send(client, form(file(jpegs[0])), "multipart/form-data" + parameters).status_code == 400


def test_a_bad_file_does_not_affect_the_others(client, jpegs) -> None:
    first, second = send(client, form(file(b"text"), file(jpegs[0]))).json()["predictions"]
    assert first == {"error": "is not an image"}
    assert len(second) == 5
