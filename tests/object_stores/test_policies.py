"""The IAM policies of docs/object-stores.md allow exactly the actions that the code requests from a server."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_trainer.storage import configuration, files
from model_trainer.storage.objects.access import ACTIONS, check_access
from tests.object_stores.proxy import Proxy, Request, proxied

PAGE = Path(__file__).parents[2] / "docs" / "object-stores.md"


def policy(heading: str) -> dict[str, Any]:
    """The policy under a heading of the page."""
    section = PAGE.read_text().partition(f"\n### {heading}\n")[2]
    block = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return dict(json.loads(block[1]))


def actions_of(heading: str) -> set[str]:
    return {action for statement in policy(heading)["Statement"] for action in statement["Action"]}


def actions_for(request: Request) -> set[str]:
    """The actions that AWS checks for a request; https://docs.aws.amazon.com/AmazonS3/latest/API/ names them."""
    path, _, query = request.target.partition("?")
    is_object = "/" in path.strip("/")
    if request.method in ("GET", "HEAD"):
        if is_object:
            return {"s3:GetObject"}
        return {"s3:ListBucketMultipartUploads"} if re.search(r"(^|&)uploads", query) else {"s3:ListBucket"}
    if request.method == "DELETE":
        return {"s3:AbortMultipartUpload"} if "uploadId" in query else {"s3:DeleteObject"}
    if request.method == "POST" and re.search(r"(^|&)delete", query):
        return {"s3:DeleteObject"}
    copied = {"s3:GetObject"} if request.header("x-amz-copy-source") else set()
    return {"s3:PutObject", *copied}


@pytest.fixture
def proxy(weed: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(weed.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        configuration.current.cache_clear()
        yield proxy


def actions_in(proxy: Proxy) -> set[str]:
    return {action for request in proxy.requests for action in actions_for(request)}


def test_the_data_policy_allows_exactly_the_actions_of_reading(weed: Any, bucket: str, proxy: Proxy) -> None:
    name = bucket.removeprefix("s3://")
    for key in ("train/cat/1.jpg", "train/dog/2.jpg"):
        weed.client().put_object(Bucket=name, Key=key, Body=b"an image")
    folder = f"{bucket}/train"
    assert files.is_folder(folder)
    assert files.names_in(folder) == ["cat", "dog"]
    assert files.matching(f"{folder}/*/*.jpg")
    path = f"{folder}/cat/1.jpg"
    assert files.info(path) is not None
    assert files.read(path) == b"an image"
    assert files.read_range(path, 3, 2) == b"im"
    with files.open_file(path) as file, files.local_copy(path) as local:
        assert file.read() == local.read_bytes()
    assert actions_in(proxy) == actions_of("Data")


@pytest.mark.long
def test_the_output_policy_allows_exactly_the_actions_of_writing(bucket: str, proxy: Proxy) -> None:
    folder = f"{bucket}/output"
    files.make_folder(folder)
    with files.lock(folder):
        files.write(f"{folder}/a.txt", b"a")
        files.write(f"{folder}/large.bin", [bytes(10 << 20), bytes(10 << 20)])
        files.copy(f"{folder}/a.txt", f"{folder}/b.txt")
        files.append_text(f"{folder}/log", "a line\n")
        files.write_folder(f"{folder}/checkpoint", [("a", [b"x"]), ("b", [b"y"])])
        files.delete(f"{folder}/b.txt")
        with contextlib.suppress(RuntimeError):
            files.write(f"{folder}/half.bin", interrupted())
    assert files.read(f"{folder}/a.txt") == b"a"
    files.delete_folder(folder)
    check_access(folder, writes=True)
    settings = actions_of("Settings of the bucket")
    requested = {settings_actions_for(request) or frozenset(actions_for(request)) for request in proxy.requests}
    assert set().union(*requested) - settings == actions_of("Output")
    assert set().union(*requested) & settings == settings


def settings_actions_for(request: Request) -> frozenset[str]:
    """The actions that AWS checks for a request about the settings of the bucket; empty for other requests."""
    query = request.target.partition("?")[2]
    names = {
        "publicAccessBlock": "s3:GetBucketPublicAccessBlock",
        "policyStatus": "s3:GetBucketPolicyStatus",
        "encryption": "s3:GetEncryptionConfiguration",
    }
    return frozenset(action for name, action in names.items() if re.search(rf"(^|&){name}\b", query))


def interrupted() -> Iterator[bytes]:
    yield bytes(20 << 20)
    raise RuntimeError("the process that computes the rest fails")


def test_doctor_checks_the_actions_of_the_policies() -> None:
    checked = {action for actions in ACTIONS.values() for action in actions}
    assert checked == actions_of("Output") | actions_of("Data") | actions_of("Settings of the bucket")


@pytest.mark.parametrize("heading", ["Data", "Output", "Settings of the bucket", "Encryption"])
def test_a_policy_names_its_resources_and_has_no_wildcard_in_an_action(heading: str) -> None:
    of_buckets = {"s3:ListBucket", "s3:ListBucketMultipartUploads"} | actions_of("Settings of the bucket")
    document = policy(heading)
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert not any("*" in action for action in statement["Action"])
        assert all(re.fullmatch(r"arn:aws:(s3:::[a-z]+(/[a-z]+/\*)?|kms:.+)", resource) for resource in resources)
        # An action on objects has no effect on the name of a bucket alone, and the reverse.
        if heading != "Encryption":
            is_of_bucket = {action in of_buckets for action in statement["Action"]}
            assert is_of_bucket == {"/" not in resource for resource in resources}


def test_the_trust_policy_lets_only_sagemaker_assume_the_role() -> None:
    (statement,) = policy("Role")["Statement"]
    assert statement["Action"] == "sts:AssumeRole"
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
