"""What users get wrong about object stores: one message with what to do, and exit code 2."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.storage import configuration
from model_trainer.storage.objects import first_contact
from tests.object_stores.conftest import free_port
from tests.object_stores.proxy import Fault, proxied


@pytest.fixture
def message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that ends with exit code 2, and returns its message."""
    monkeypatch.setenv("MODEL_TRAINER_STORAGE_OPTIONS", "")  # so that it is removed again

    def run(*arguments: str) -> str:
        configuration.current.cache_clear()
        assert exit_code_of(lambda: app([*arguments])) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert len(error.splitlines()) == 1
        return error

    return run


def test_no_credentials(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert message("runs", bucket) == (
        f"Error: {bucket}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
        "or run `aws configure` or `aws sso login`; for a public bucket set MODEL_TRAINER_S3_ANONYMOUS=1.\n"
    )


def test_a_profile_that_does_not_exist(bucket: str, message: Any) -> None:
    assert "The config profile (lab) could not be found. `aws configure list-profiles` lists the profiles" in message(
        "runs", bucket, "--profile", "lab"
    )


def test_an_access_key_that_does_not_exist(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUPFORTESTS00")
    text = message("runs", bucket)
    assert "the access key does not exist at http://127.0.0.1" in text
    assert "`model-trainer config` shows where it comes from" in text


def test_a_wrong_secret_is_not_repeated(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-and-wrong")
    text = message("runs", bucket)
    assert "the secret key does not belong to the access key" in text
    assert "made-up-and-wrong" not in text


def test_a_bucket_that_does_not_exist(s3: Any, message: Any) -> None:
    assert message("runs", "s3://no-such-bucket/output") == (
        f"Error: s3://no-such-bucket/output: there is no bucket 'no-such-bucket' at {s3.endpoint}; check its name, and "
        "the endpoint with `model-trainer config`.\n"
    )


def test_a_bucket_that_cannot_exist(s3: Any, message: Any) -> None:
    assert "names the bucket 'My_Photos', which cannot exist: names have 3 to 63 lower-case" in message(
        "runs", "s3://My_Photos/output"
    )


def test_a_key_that_does_not_exist(bucket: str, message: Any) -> None:
    assert f"{bucket}/nothing" in message("doctor", f"{bucket}/nothing")


def test_no_permission(weed: Any, bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults.append(Fault(times=100, status=403, code="AccessDenied"))
        text = message("runs", f"{bucket}/output")
    assert f"no permission for it; `model-trainer doctor {bucket}` names what is missing" in text


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")])
def test_the_region_of_another_bucket(
    weed: Any, bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.faults.append(Fault(times=100, status=status, code=code))
        text = message("runs", f"{bucket}/output")
    assert "the bucket is in another region than us-east-1" in text
    assert "--region or AWS_REGION" in text


def test_a_region_that_does_not_exist(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setattr(first_contact.socket, "create_connection", unknown_host)
    assert "there is no region 'eu-cental-1'. Did you mean 'eu-central-1'? Set it with --region or AWS_REGION" in (
        message("runs", bucket, "--region", "eu-cental-1")
    )


def unknown_host(*arguments: Any, **options: Any) -> None:
    raise first_contact.socket.gaierror(first_contact.socket.EAI_NONAME, "Name or service not known")


def test_an_endpoint_whose_host_does_not_exist(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_contact.socket, "create_connection", unknown_host)
    text = message("runs", bucket, "--endpoint-url", "http://minio.invalid:9000")
    assert "the host of the endpoint http://minio.invalid:9000 does not exist" in text


def test_an_endpoint_that_does_not_answer(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_S3_RETRY_SECONDS", "0")
    endpoint = f"http://127.0.0.1:{free_port()}"
    text = message("runs", bucket, "--endpoint-url", endpoint)
    assert f"there is no answer from the endpoint {endpoint} (connection refused). Check it" in text


@pytest.mark.parametrize("package", ["boto3", "obstore"])
def test_a_missing_extra(bucket: str, message: Any, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    text = message("runs", bucket)
    assert f"need {package}. Run: .venv/bin/pip install -e '.[s3]'" in text


@pytest.mark.parametrize("url", ["s3:/photos/x", "S3://photos/x", "s3//photos/x", "s3a://photos/x", "s3:///photos/x"])
def test_a_url_with_a_typing_error(message: Any, url: str) -> None:
    assert "Did you mean s3://photos/x?" in message("runs", url)
