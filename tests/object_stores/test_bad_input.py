"""Mistakes of users with object stores: each gives one message that says what to do, and exit code 2."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import StorageError
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import endpoint_check
from tests.object_stores.conftest import free_port
from tests.object_stores.proxy import Fault, proxied


@pytest.fixture
def message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that ends with exit code 2, and returns its message."""
    monkeypatch.setenv("MODEL_TRAINER_STORAGE_OPTIONS", "")  # monkeypatch then undoes what the command sets

    def run(*arguments: str) -> str:
        configuration.current.cache_clear()
        assert exit_code_of(lambda: app([*arguments])) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert len(error.splitlines()) == 1
        return error

    return run


def test_missing_credentials_are_explained(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert message("runs", bucket) == (
        f"Error: {bucket}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
        "or run `aws configure` or `aws sso login`; for a public bucket set MODEL_TRAINER_S3_ANONYMOUS=1.\n"
    )


def test_an_unknown_profile_is_named(bucket: str, message: Any) -> None:
    assert "The config profile (lab) could not be found. `aws configure list-profiles` lists the profiles" in message(
        "runs", bucket, "--profile", "lab"
    )


def test_an_unknown_access_key_is_explained(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUPFORTESTS00")
    text = message("runs", bucket)
    assert "the access key does not exist at http://127.0.0.1" in text
    assert "`model-trainer config` shows where it comes from" in text


def test_a_wrong_secret_key_is_explained_without_showing_it(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-and-wrong")
    text = message("runs", bucket)
    assert "the secret key does not belong to the access key" in text
    assert "made-up-and-wrong" not in text


def test_a_missing_bucket_is_named_with_the_endpoint(s3: Any, message: Any) -> None:
    assert message("runs", "s3://no-such-bucket/output") == (
        f"Error: s3://no-such-bucket/output: there is no bucket 'no-such-bucket' at {s3.endpoint}; check its name, and "
        "the endpoint with `model-trainer config`.\n"
    )


def test_an_invalid_bucket_name_is_explained(s3: Any, message: Any) -> None:
    assert "names the bucket 'My_Photos', which cannot exist: names have 3 to 63 lower-case" in message(
        "runs", "s3://My_Photos/output"
    )


def test_a_missing_key_is_named(bucket: str, message: Any) -> None:
    assert f"{bucket}/nothing" in message("doctor", f"{bucket}/nothing")


def test_a_missing_permission_suggests_doctor(
    weed: Any, bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults.append(Fault(times=100, status=403, code="AccessDenied"))
        text = message("runs", f"{bucket}/output")
    assert f"no permission for it; `model-trainer doctor {bucket}/output` names what is missing" in text


def test_a_refused_write_suggests_the_write_check_of_doctor(
    weed: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults.append(Fault("PUT", times=100, status=403, code="AccessDenied"))
        with pytest.raises(StorageError, match=f"`model-trainer doctor {bucket}/output --write` names what is missing"):
            files.write(f"{bucket}/output/a", b"1")


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")])
def test_a_bucket_in_another_region_is_explained(
    weed: Any, bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults.append(Fault(times=100, status=status, code=code))
        text = message("runs", f"{bucket}/output")
    assert "the bucket is in another region than us-east-1" in text
    assert "--region or AWS_REGION" in text


def test_a_mistyped_region_is_corrected(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setattr(endpoint_check.socket, "create_connection", unknown_host)
    assert "there is no region 'eu-cental-1'. Did you mean 'eu-central-1'? Set it with --region or AWS_REGION" in (
        message("runs", bucket, "--region", "eu-cental-1")
    )


def unknown_host(*arguments: Any, **options: Any) -> None:
    raise endpoint_check.socket.gaierror(endpoint_check.socket.EAI_NONAME, "Name or service not known")


def test_an_endpoint_with_an_unknown_host_is_named(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_check.socket, "create_connection", unknown_host)
    text = message("runs", bucket, "--endpoint-url", "http://minio.invalid:9000")
    assert "the host of the endpoint http://minio.invalid:9000 does not exist" in text


def test_an_endpoint_without_a_server_is_named(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_S3_RETRY_SECONDS", "0")
    endpoint = f"http://127.0.0.1:{free_port()}"
    text = message("runs", bucket, "--endpoint-url", endpoint)
    assert f"there is no answer from the endpoint {endpoint} (connection refused). Check it" in text


@pytest.mark.parametrize("arguments", [("doctor", "{}/train"), ("sync", "{}/train", "down"), ("runs", "{}/train")])
def test_a_server_that_is_not_an_s3_server_is_named(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyWebServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        text = message(*(each.format(bucket) for each in arguments), "--endpoint-url", endpoint)
    finally:
        server.shutdown()
        server.server_close()
    assert f"{endpoint} does not answer as an S3 server does; check the endpoint with `model-trainer config`" in text


class EmptyWebServer(BaseHTTPRequestHandler):
    """Answers each request with 404, as a web server without pages."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


def test_https_to_an_http_server_is_explained(s3: Any, bucket: str, message: Any) -> None:
    endpoint = s3.endpoint.replace("http:", "https:")
    text = message("runs", bucket, "--endpoint-url", endpoint)
    assert f"the server of the endpoint {endpoint} uses http, not https" in text


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_a_line_break_in_a_secret_is_explained_without_showing_it(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hidden\n")
    text = message("runs", bucket)
    assert f"{name}, or its line in the profile, contains a line break" in text
    assert "hidden" not in text


def test_a_password_in_the_endpoint_of_a_profile_is_refused_without_showing_it(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://user:hidden@127.0.0.1:1\n")
    text = message("runs", bucket)
    assert "The endpoint_url of the profile contains a user or a password" in text
    assert "hidden" not in text


def test_a_missing_credential_process_is_named_without_its_arguments(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\ncredential_process = no-such-tool --password hidden\n")
    text = message("runs", bucket)
    assert "the credentials cannot be read: No such file or directory: no-such-tool" in text
    app(["config"], standalone_mode=False)
    assert "no-such-tool" in (shown := capsys.readouterr().out)
    assert "hidden" not in text + shown


@pytest.mark.parametrize("package", ["boto3", "obstore"])
@pytest.mark.parametrize("command", ["runs", "doctor"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, package: str, command: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    text = message(command, f"{bucket}/train")
    assert f"need {package}. Run: .venv/bin/pip install -e '.[s3]'" in text


@pytest.mark.parametrize("url", ["s3:/photos/x", "S3://photos/x", "s3//photos/x", "s3a://photos/x", "s3:///photos/x"])
def test_a_mistyped_url_is_corrected(message: Any, url: str) -> None:
    assert "Did you mean s3://photos/x?" in message("runs", url)
