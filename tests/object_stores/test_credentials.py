"""Credentials, endpoints and certificates come from AWS' configuration; secrets are never printed or written."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.storage import configuration, files
from model_trainer.storage.objects import connection
from model_trainer.storage.objects.errors import ExpiredError, StoreError
from tests.object_stores.conftest import KEY, SECRET, Weed
from tests.object_stores.proxy import Fault, Proxy, proxied


@pytest.fixture
def aws_files(s3: Weed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for AWS' files `config` and `credentials`, the only configuration of the test."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def write_profile(folder: Path, endpoint: str, more: str = "") -> None:
    profile = f"[profile lab]\nregion = us-east-1\nservices = lab\n{more}\n"
    (folder / "config").write_text(f"{profile}[services lab]\ns3 =\n  endpoint_url = {endpoint}\n")


def write_process(folder: Path, body: str) -> str:
    """Writes a `credential_process` that counts its calls in the file `calls`; returns its line for a profile."""
    program = folder / "process.py"
    program.write_text(
        f"import datetime, json, pathlib, sys\nfolder = pathlib.Path({str(folder)!r})\n"
        "with (folder / 'calls').open('a') as file:\n    file.write('.')\n"
        "calls = len((folder / 'calls').read_text())\n" + textwrap.dedent(body)
    )
    return f"credential_process = {sys.executable} {program}"


ANSWER = f"""
minutes = %s
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
keys = {{"AccessKeyId": {KEY!r}, "SecretAccessKey": {SECRET!r}}}
print(json.dumps({{"Version": 1, **keys, "Expiration": expiry.isoformat()}}))
"""


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text())


def test_a_profile_gives_credentials_and_endpoint(
    bucket: str, s3: Weed, aws_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(aws_files, s3.endpoint)
    (aws_files / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    files.write(f"{bucket}/a", b"1")
    assert files.read(f"{bucket}/a") == b"1"


def test_a_profile_that_does_not_exist_is_named(aws_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lbb")
    with pytest.raises(ConfigError, match=r"lbb.*`aws configure list-profiles` lists the profiles"):
        files.read("s3://photos/a")


def test_missing_credentials_are_an_error_that_says_how_to_set_them(aws_files: Path) -> None:
    with pytest.raises(StoreError, match="s3://photos: there are no credentials. Set AWS_ACCESS_KEY_ID"):
        files.exists("s3://photos/a")


def test_expiring_credentials_are_renewed_during_a_run(
    bucket: str, s3: Weed, aws_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # boto3 renews credentials that expire within 10 minutes, as only those of the first answer do.
    write_profile(aws_files, s3.endpoint, write_process(aws_files, ANSWER % "(5 if calls == 1 else 60)"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    files.write(f"{bucket}/a", b"1")
    for _ in range(3):
        assert files.read(f"{bucket}/a") == b"1"
    assert calls(aws_files) == 2


def test_credentials_that_the_store_rejects_as_expired_are_read_again(
    bucket: str, s3: Weed, aws_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(s3.port) as proxy:
        write_profile(aws_files, proxy.endpoint)
        other = f"[lab]\naws_access_key_id = expired\naws_secret_access_key = {SECRET}\naws_session_token = old\n"
        (aws_files / "credentials").write_text(other)
        monkeypatch.setenv("AWS_PROFILE", "lab")

        def log_in() -> None:
            right = f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
            (aws_files / "credentials").write_text(right)

        proxy.faults = [Fault(status=400, code="ExpiredToken", before=log_in, times=2)]
        assert not files.exists(f"{bucket}/a")
        files.write(f"{bucket}/a", b"1")
        assert files.read(f"{bucket}/a") == b"1"
        assert KEY in proxy.requests[-1].header("Authorization")


def test_a_run_whose_credentials_cannot_be_renewed_ends_with_75(
    bucket: str,
    s3: Weed,
    aws_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_retries: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = "if (folder / 'ended').exists():\n    sys.exit('the login has ended\\nsecret details')\n" + ANSWER % "5"
    write_profile(aws_files, s3.endpoint, write_process(aws_files, body))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert not files.exists(f"{bucket}/a")
    (aws_files / "ended").touch()

    def read_on() -> None:
        while True:  # obstore asks for credentials ten times a second
            files.exists(f"{bucket}/a")

    with pytest.raises(ExpiredError, match="the credentials could not be renewed .*the login has ended") as caught:
        read_on()
    assert caught.value.exit_code == 75
    assert "secret details" not in f"{caught.value}{caplog.text}"


def test_an_expired_login_is_reported_before_the_run(
    bucket: str, s3: Weed, aws_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(aws_files, s3.endpoint, write_process(aws_files, "sys.exit('log in first')"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    with pytest.raises(StoreError, match="there are no credentials: .*log in first") as caught:
        files.exists(f"{bucket}/a")
    assert caught.value.exit_code == 2


def test_anonymous_requests_are_not_signed(proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    anonymous = configuration.Configuration(endpoint=proxy.endpoint, region="us-east-1", anonymous=True)
    monkeypatch.setattr(configuration, "current", functools.cache(lambda: anonymous))
    with pytest.raises(StoreError):  # the server has no public buckets
        files.read(f"{bucket}/a")
    assert [each.header("Authorization") for each in proxy.requests] == [""]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The paths of a self-signed certificate and of its key."""
    folder = tmp_path_factory.mktemp("certificate")
    paths = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
            "basicConstraints=critical,CA:FALSE", "-out", paths[0], "-keyout", paths[1],
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


def test_a_certificate_in_aws_ca_bundle_is_trusted(
    bucket: str, s3: Weed, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    with proxied(s3.port, certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", certificate[0])
        files.write(f"{bucket}/a", b"1")
        assert files.read(f"{bucket}/a") == b"1"


def test_a_certificate_that_is_not_trusted_is_an_error(
    bucket: str, s3: Weed, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    with proxied(s3.port, certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StoreError, match="certificate of https://localhost.* is not trusted.*AWS_CA_BUNDLE"):
            files.read(f"{bucket}/a")


def test_a_missing_certificate_file_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"/nowhere/ca\.pem"):
        files.read(f"{bucket}/a")


@pytest.mark.parametrize(
    ("endpoint", "style", "expected", "by_host"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "auto", "https://photos.s3.eu-west-1.amazonaws.com", True),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "auto",
         "https://photos.s3.dualstack.eu-west-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", "auto", "https://photos.s3.cn-north-1.amazonaws.com.cn", True),
        ("https://s3.eu-west-1.amazonaws.com", "path", "https://s3.eu-west-1.amazonaws.com", False),
        ("http://127.0.0.1:8333", "auto", "http://127.0.0.1:8333", False),
        ("https://oss.example.com", "virtual", "https://photos.oss.example.com", True),
        ("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", "auto",
         "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", False),
    ],
)  # fmt: skip
def test_buckets_are_addressed_by_host_on_aws_and_by_path_elsewhere(
    endpoint: str, style: str, expected: str, by_host: bool
) -> None:
    assert connection._address("photos", endpoint, style) == {
        "endpoint": expected,
        "virtual_hosted_style_request": by_host,
    }


def test_a_bucket_with_dots_is_addressed_by_path() -> None:
    address = connection._address("photos.example.com", "https://s3.eu-west-1.amazonaws.com", "auto")
    assert address["endpoint"] == "https://s3.eu-west-1.amazonaws.com"


SECRETS = ("made-up-secret-key", "made-up-session-token", "AWSAccessKeyId", "X-Amz-Signature", "Authorization")


def test_no_secret_is_printed_logged_or_written(
    proxy: Proxy,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS[0])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS[1])
    caplog.set_level(logging.INFO)
    seen: list[str] = []
    for code, status in [("SignatureDoesNotMatch", 403), ("ExpiredToken", 400), ("", 503), ("Strange", 400), ("", 301)]:
        proxy.faults = [Fault(status=status, code=code, times=1000)]
        for access in (files.read, files.exists, files.names_in, lambda path: files.write(path, b"1")):
            try:
                access(f"{bucket}/a")
            except (ModelTrainerError, OSError) as error:
                seen += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    proxy.faults = []
    try:
        files.read(f"{bucket}/a")  # the real server's answer to a wrong secret
    except OSError as error:
        seen.append(str(error))
    store = files.storage_of(bucket)
    seen.append(repr(store.locate(f"{bucket}/a")))  # type: ignore[attr-defined]
    output = capfd.readouterr()
    written = [each.read_text(errors="replace") for each in tmp_path.rglob("*") if each.is_file()]
    everything = "\n".join([*seen, caplog.text, output.out, output.err, *written])
    assert len(seen) > 60
    assert [each for each in SECRETS if each in everything] == []
