"""`model-trainer doctor s3://...` names missing permissions; with users of a real server who lack some."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from model_trainer.cli.main import app
from model_trainer.storage import configuration, files
from model_trainer.storage.objects.access import Result, check_access
from tests.object_stores.proxy import Fault, proxied

pytestmark = pytest.mark.long
As = Callable[..., None]


@pytest.fixture
def as_user(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> As:
    """Switches the credentials to those of a new user who has permission only for the given actions in the bucket."""
    import boto3

    iam = boto3.client(
        "iam",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3.environ["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    name = bucket.removeprefix("s3://")

    def become(*actions: str) -> None:
        statement = {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.create_user(UserName=f"user-of-{name}")
        key = iam.create_access_key(UserName=f"user-of-{name}")["AccessKey"]
        iam.put_user_policy(UserName=f"user-of-{name}", PolicyName="p", PolicyDocument=json.dumps(policy))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        monkeypatch.delitem(files._MOUNTED, "s3", raising=False)
        configuration.current.cache_clear()

    return become


@pytest.fixture
def train(s3: Any, bucket: str) -> str:
    """A folder with one object."""
    s3.client().put_object(Bucket=bucket.removeprefix("s3://"), Key="train/cat/1.jpg", Body=b"an image")
    return f"{bucket}/train"


def results(path: str, *, writes: bool = False) -> dict[str, Result]:
    return {check.name: check.result for check in check_access(path, writes=writes)}


def detail(path: str, name: str, *, writes: bool = False) -> str:
    return next(check.detail for check in check_access(path, writes=writes) if check.name == name)


def test_permission_to_list_and_read_is_enough_for_training_data(train: str, as_user: As) -> None:
    as_user("s3:ListBucket", "s3:GetObject")
    assert results(train) == {
        "list": Result.ok, "read": Result.ok, "public access": Result.unknown, "encryption": Result.unknown,
    }  # fmt: skip
    assert "s3:GetEncryptionConfiguration" in detail(train, "encryption")


def test_missing_permissions_are_named_with_action_and_resource(train: str, bucket: str, as_user: As) -> None:
    name = bucket.removeprefix("s3://")
    as_user("s3:ListBucket")
    checks = {check.name: check for check in check_access(train, writes=True)}
    assert {name for name, check in checks.items() if check.result is Result.missing} == {"read", "write"}
    assert f"needs s3:GetObject on arn:aws:s3:::{name}/train/*" in checks["read"].detail
    assert f"needs s3:PutObject on arn:aws:s3:::{name}/train/*" in checks["write"].detail
    assert checks["uploads"].result is Result.warning  # outputs are correct without it
    assert f"s3:AbortMultipartUpload on arn:aws:s3:::{name}" in checks["uploads"].detail


def test_without_permission_to_list_the_check_of_reading_is_unknown(train: str, bucket: str, as_user: As) -> None:
    as_user("s3:GetObject")
    assert results(train)["list"] is Result.missing
    assert results(train)["read"] is Result.unknown
    assert detail(train, "list") == f"needs s3:ListBucket on arn:aws:s3:::{bucket.removeprefix('s3://')}"


def test_a_test_object_that_cannot_be_deleted_is_named(train: str, as_user: As) -> None:
    as_user("s3:ListBucket", "s3:GetObject", "s3:PutObject")
    checks = {check.name: check for check in check_access(train, writes=True)}
    assert (checks["write"].result, checks["delete"].result) == (Result.ok, Result.missing)
    assert f"{checks['write'].detail} is left behind" in checks["delete"].detail


def test_the_write_check_leaves_no_object(train: str) -> None:
    checks = results(train, writes=True)
    assert {checks[name] for name in ("list", "read", "write", "delete", "uploads")} == {Result.ok}
    assert files.names_in(train) == ["cat"]


def test_unfinished_multipart_uploads_are_counted(s3: Any, bucket: str, train: str) -> None:
    s3.client().create_multipart_upload(Bucket=bucket.removeprefix("s3://"), Key="train/big")
    assert detail(train, "uploads", writes=True).startswith("1 interrupted or running")


def test_a_public_bucket_gives_a_warning(s3: Any, bucket: str, train: str) -> None:
    assert results(train)["public access"] is Result.ok
    name = bucket.removeprefix("s3://")
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
    }
    s3.client().put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert results(train)["public access"] is Result.warning
    assert detail(train, "public access").startswith("anyone may list and read without credentials")


def test_a_default_encryption_is_shown(s3: Any, bucket: str, train: str) -> None:
    assert results(train)["encryption"] is Result.warning
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.client().put_bucket_encryption(
        Bucket=bucket.removeprefix("s3://"), ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    assert detail(train, "encryption") == "AES256"


def test_doctor_prints_a_line_per_check_and_exits_with_1_if_a_permission_is_missing(train: str, as_user: As) -> None:
    result = CliRunner().invoke(app, ["doctor", train, "--write"])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()][:2] == ["Access", "list"]
    as_user("s3:ListBucket")
    result = CliRunner().invoke(app, ["doctor", train, "--write"])
    assert result.exit_code == 1
    assert "s3:PutObject" in result.output


def test_the_write_check_is_only_for_urls(tmp_path: Any) -> None:
    result = CliRunner().invoke(app, ["doctor", str(tmp_path), "--write"])
    assert "`--write` checks a URL in an object store" in str(result.exception)


def test_an_unsupported_request_is_unknown_and_not_refused(
    train: str, weed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        files._MOUNTED.pop("s3", None)
        configuration.current.cache_clear()
        for name in ("publicAccessBlock", "policyStatus", "encryption", "encoding-type=url"):
            proxy.faults.append(Fault(target=name, times=100, status=400, code="Strange"))
        assert (results(train)["public access"], results(train)["encryption"]) == (Result.unknown, Result.unknown)
        assert "neither answered nor refused: Strange" in detail(train, "public access")
    files._MOUNTED.pop("s3", None)


def test_each_missing_action_is_named_with_its_resource(train: str, as_user: As) -> None:
    as_user("s3:ListBucket", "s3:GetObject")
    name = train.removeprefix("s3://").removesuffix("/train")
    text = detail(train, "uploads", writes=True)
    assert f"s3:ListBucketMultipartUploads on arn:aws:s3:::{name} and" in text
    assert f"s3:AbortMultipartUpload on arn:aws:s3:::{name}/train/*" in text
