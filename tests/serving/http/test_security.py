"""Access control: the token, and the headers Host and Origin."""

from __future__ import annotations

import pytest

OWN = "localhost:8080"
WRONG_HOSTS = [
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "[::2]", "", "[::1]evil.example",
    "localhost:80@evil.example",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/model", "/metrics", "/nothing"])
def test_a_request_without_the_token_is_answered_401(make_client, path: str) -> None:
    client = make_client(token="s3cret")
    response = client("GET", path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in response.json()["error"]
    assert client("GET", path, headers={"authorization": "Bearer s3cret"}).status_code in (200, 404)


@pytest.mark.parametrize("value", ["Bearer s3cre", "Bearer s3crett", "Basic s3cret", "s3cret", "Bearer", "Bearer \xe9"])
def test_a_wrong_token_is_refused_before_the_image_is_read(make_client, service, jpegs, value: str) -> None:
    response = make_client(token="s3cret")(
        "POST", "/invocations", content=jpegs[0], headers={"authorization": value.encode("latin-1")}
    )
    assert response.status_code == 401
    assert response.headers["connection"] == "close"
    assert not service.received


def test_the_scheme_bearer_is_case_insensitive(make_client, jpegs) -> None:
    client = make_client(token="s3cret")
    assert client.send(jpegs[0], authorization="bearer s3cret").status_code == 200


@pytest.mark.parametrize("path", ["/ping", "/openapi.json"])
def test_ping_and_the_openapi_document_need_no_token(make_client, path: str) -> None:
    assert make_client(token="s3cret")("GET", path).status_code == 200


def test_without_the_token_the_openapi_document_does_not_name_the_classes(make_client, trained) -> None:
    client = make_client(token="s3cret")
    assert trained.classes[0] not in client("GET", "/openapi.json").text
    with_token = client("GET", "/openapi.json", headers={"authorization": "Bearer s3cret"}).json()
    (label,) = with_token["paths"]["/attribution"]["post"]["parameters"]
    assert label["schema"]["enum"] == list(trained.classes)


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"])
def test_a_server_on_the_loopback_address_accepts_its_own_host_names(client, host: str) -> None:
    assert client("GET", "/ping", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_a_server_on_the_loopback_address_refuses_other_host_names(client, host: str) -> None:
    response = client("GET", "/ping", headers={"host": host})
    assert response.status_code == 403
    assert "--allowed-host" in response.json()["error"]


def test_an_allowed_host_is_accepted(make_client) -> None:
    client = make_client(allowed_hosts=("models.example",))
    assert client("GET", "/ping", headers={"host": "Models.Example:443"}).status_code == 200


def test_a_server_on_a_public_address_accepts_any_host_unless_hosts_are_given(make_client) -> None:
    elsewhere = {"host": "10.1.2.3:8080"}
    assert make_client(host="0.0.0.0", token="t")("GET", "/ping", headers=elsewhere).status_code == 200
    named = make_client(host="0.0.0.0", token="t", allowed_hosts=("models.example",))
    assert named("GET", "/ping", headers=elsewhere).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:81", "http://", "localhost:8080"])
def test_a_request_from_another_origin_is_refused(client, service, jpegs, origin: str) -> None:
    response = client.send(jpegs[0], origin=origin)
    assert response.status_code == 403
    assert not service.received


@pytest.mark.parametrize(
    ("origin", "host"),
    [("http://localhost:8080", OWN), ("http://localhost", "localhost:80"), ("https://localhost:443", "localhost")],
)
def test_a_request_from_the_own_origin_is_accepted(client, jpegs, origin: str, host: str) -> None:
    assert client.send(jpegs[0], origin=origin, host=host).status_code == 200


def test_a_server_without_token_on_a_public_address_checks_neither_host_nor_origin(make_client, jpegs) -> None:
    client = make_client(allows_anonymous=True, host="0.0.0.0")
    assert client.send(jpegs[0], host="model.internal", origin="https://a.example").status_code == 200
