"""Requests that are not answered with predictions: status, headers and message of the response."""

from __future__ import annotations

import pytest

from model_trainer.serving.answers import Busy, InferenceFailed, NotReady, TooSlow


@pytest.mark.parametrize(
    ("content_type", "received"),
    [
        ("text/plain", "Content-Type text/plain is not supported"),
        ("image", "Content-Type image is not supported"),
        (None, "Content-Type is missing"),
    ],
)
def test_an_unknown_content_type_is_answered_with_the_accepted_ones(
    client, content_type: str | None, received: str
) -> None:
    response = client.send(b"x", content_type)
    assert response.status_code == 415
    assert response.json()["error"] == (
        f"{received}; send image/jpeg, image/png, image/webp, application/x-image, multipart/form-data, "
        "application/json or application/jsonlines."
    )


def test_a_compressed_body_is_refused(client, jpegs) -> None:
    assert client.send(jpegs[0], content_encoding="gzip").status_code == 415


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1e9", "", "1.5", "9" * 30, "%00"])
def test_top_k_below_1_or_not_a_whole_number_is_refused(client, jpegs, value: str) -> None:
    response = client.send(jpegs[0], path=f"/invocations?top_k={value}")
    assert response.status_code == 400
    assert response.json()["error"].startswith("top_k should be a whole number from 1 on; received")


def test_top_k_limits_the_number_of_labels(client, jpegs, trained) -> None:
    for top_k, number in ((1, 1), (6, 6), (999_999_999, len(trained.classes))):
        response = client.send(jpegs[0], path=f"/invocations?top_k={top_k}").json()
        assert len(response["predictions"]) == number


def test_without_top_k_the_default_of_the_server_applies(make_client, jpegs) -> None:
    assert len(make_client(top=2).send(jpegs[0]).json()["predictions"]) == 2


@pytest.mark.parametrize("query", ["topk=1", "top-k=1", "TOP_K=1", "ouput=labels", "outputs=labels"])
def test_a_misspelt_parameter_is_answered_with_the_right_name(client, jpegs, query: str) -> None:
    response = client.send(jpegs[0], path=f"/invocations?{query}")
    assert response.status_code == 400
    assert "Did you mean" in response.json()["error"]


def test_an_unrelated_parameter_is_ignored(client, jpegs) -> None:
    assert client.send(jpegs[0], path="/invocations?utm_source=x&v=3").status_code == 200


@pytest.mark.parametrize("query", ["top_k=1&top_k=2", "output=csv", "x=" + "y" * 3000, "&".join(["x=1"] * 51)])
def test_an_invalid_query_is_refused(client, jpegs, query: str) -> None:
    assert client.send(jpegs[0], path=f"/invocations?{query}").status_code == 400


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/json;q=0", "application/xml, text/plain"])
def test_an_unsupported_accept_header_is_refused(client, jpegs, accept: str) -> None:
    response = client.send(jpegs[0], accept=accept)
    assert response.status_code == 406
    assert "text/csv" in response.json()["error"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("*/*;q=0.1, application/x-npy", "application/x-npy"),
        ("application/json;q=0, */*", "application/jsonlines"),
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("application/json;verbose;q=x, text/csv;q=0.1", "text/csv"),
    ],
)
def test_the_format_follows_the_preference_in_accept(client, jpegs, accept: str, content_type: str) -> None:
    response = client.send(jpegs[0], accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)


@pytest.mark.parametrize("format", ["text/csv", "application/x-npy"])
def test_csv_and_npy_refuse_a_request_with_a_bad_image(client, pixels, format: str) -> None:
    body = {"instances": [pixels[0].tolist(), {"b64": "dGV4dA=="}]}
    response = client.send_json(body, accept=format)
    assert response.status_code == 400
    assert response.json()["error"] == "Image 2 of 2 cannot be read: it is not an image."


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [(NotReady(), 503, "1"), (Busy(7), 429, "7"), (TooSlow(), 504, None), (InferenceFailed("/srv/x.py"), 500, None)],
)
def test_an_error_of_the_service_has_its_status_and_no_internal_details(
    client, service, jpegs, error: Exception, status: int, retry_after
) -> None:
    service.error = error
    response = client.send(jpegs[0])
    assert response.status_code == status
    assert response.headers.get("retry-after") == retry_after
    assert "/srv" not in response.text
    service.error = None
    assert client.send(jpegs[0]).status_code == 200


def test_an_unexpected_error_is_answered_without_its_message(client, service, jpegs, caplog) -> None:
    service.error = OSError(2, "No such file", "/srv/secret/model.hdf5")
    response = client.send(jpegs[0], x_request_id="abc-1")
    assert response.status_code == 500
    assert response.json() == {"error": "The server failed; its log has the reason.", "request_id": "abc-1"}


def test_before_the_model_is_loaded_requests_are_answered_503(client, service, jpegs) -> None:
    service.trained, service.status = None, "starting"
    assert client.send(jpegs[0]).status_code == 503
    assert client("GET", "/model").status_code == 503
    assert client("GET", "/openapi.json").status_code == 200
    assert client("GET", "/ping").json() == {"status": "starting"}


def test_ping_is_answered_503_if_the_service_hangs(client, service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_trainer.serving.http.routes.PING_SECONDS", 0.01)
    service.is_hanging = True
    response = client("GET", "/ping")
    assert (response.status_code, response.json()) == (503, {"status": "failing"})


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/invocations", 405, {"POST"}),
        ("OPTIONS", "/invocations", 405, {"POST"}),
        ("HEAD", "/invocations", 405, {"POST"}),
        ("POST", "/ping", 405, {"GET", "HEAD"}),
        ("DELETE", "/model", 405, {"GET", "HEAD"}),
        ("GET", "/nothing", 404, None),
        ("POST", "/invocations/", 404, None),
        ("GET", "/ping/", 404, None),
        ("GET", "/../../etc/passwd", 404, None),
        ("GET", "/static/..%2f..%2fapp.py", 404, None),
    ],
)
def test_unknown_paths_and_methods_are_answered_404_and_405(
    client, method: str, path: str, status: int, allow: set[str]
) -> None:
    response = client(method, path)
    assert response.status_code == status
    assert allow is None or set(response.headers["allow"].replace(" ", "").split(",")) == allow
    assert method == "HEAD" or set(response.json()) == {"error", "request_id"}


def test_ping_may_be_requested_with_head(client) -> None:
    assert client("HEAD", "/ping").status_code == 200


def test_a_percent_encoded_path_is_the_same_path(client, jpegs) -> None:
    assert client.send(jpegs[0], path="/%69nvocations").status_code == 200


def test_every_response_has_an_id_and_forbids_content_sniffing(client, jpegs) -> None:
    for response in (client.send(jpegs[0]), client.send(b""), client("GET", "/ping"), client("GET", "/nothing")):
        assert len(response.headers.get_list("x-request-id")) == 1
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize(
    ("sent", "is_cached"), [("a" * 128, True), ("a" * 129, False), ("a b", False), ("A.b_c-9", True)]
)
def test_the_request_id_of_the_client_is_used_if_it_is_short_and_plain(client, sent: str, is_cached: bool) -> None:
    assert (client("GET", "/ping", headers={"x-request-id": sent}).headers["x-request-id"] == sent) == is_cached
