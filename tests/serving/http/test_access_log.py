"""The access log: one line of JSON for each request, whatever the client sends."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

import pytest


@pytest.fixture
def logged(make_client, capsys: pytest.CaptureFixture[str]) -> Any:
    client = make_client(has_access_log=True, token="s3cret")

    def send(*arguments: Any, **keywords: Any) -> tuple[dict[str, Any], str]:
        capsys.readouterr()
        client(*arguments, **keywords)
        text = capsys.readouterr().out
        assert text.count("\n") == 1
        return json.loads(text), text

    return send


def test_each_request_is_one_line_of_json(logged, jpegs) -> None:
    line, _ = logged(
        "POST",
        "/invocations?top_k=2&key=private&output=probabilities",
        content=jpegs[0],
        headers={"content-type": "image/jpeg", "authorization": "Bearer s3cret", "x-request-id": "my-1"},
    )
    seconds, time = line.pop("seconds"), line.pop("time")
    assert line.pop("bytes_out") > 50
    assert 0 < seconds < 60
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(time)
    assert abs(age.total_seconds()) < 60
    assert line == {
        "request_id": "my-1",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/invocations?top_k=2&output=probabilities",
        "status": 200,
        "bytes_in": len(jpegs[0]),
        "images": 1,
        "queue_seconds": 0.25,
        "compute_seconds": 0.5,
    }


def test_neither_token_nor_other_query_values_are_logged(logged) -> None:
    _, text = logged("GET", "/model?token=s3cret", headers={"authorization": "Bearer wr0ng"})
    assert "s3cret" not in text
    assert "wr0ng" not in text


def test_a_client_cannot_inject_lines_into_the_log(logged) -> None:
    line, text = logged("GET", '/a%0a{"status":200}%1b[31m' + "b" * 1000 + "%ff")
    assert line["path"].startswith('/a\n{"status":200}\x1b[31mbbb')
    assert len(line["path"]) == 200
    assert line["status"] == 401
    assert "\x1b" not in text


def test_refused_requests_are_logged_too(logged) -> None:
    line, _ = logged("POST", "/invocations", content=b"x", headers={"authorization": "Bearer s3cret"})
    assert (line["status"], line["images"]) == (415, 0)


def test_requests_are_answered_even_if_the_log_cannot_be_written(make_client, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(has_access_log=True)
    with open(os.devnull, "w") as closed:
        pass
    monkeypatch.setattr("sys.stdout", closed)
    assert client("GET", "/ping").status_code == 200
