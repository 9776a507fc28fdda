"""What the credentials may do below a URL, and who else may do it: `model-trainer doctor s3://...`.

Listing, reading and writing are tried with the requests that training makes, public access also with unsigned ones.
Whether the bucket is protected is read from its settings, which needs permissions that training does not.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from model_trainer.storage.objects.credentials import new_client, new_session
from model_trainer.storage.objects.errors import DeniedError, StoreError, StoreUnavailableError
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import ObjectUrl, parse_url

__all__ = ["ACTIONS", "Check", "Result", "check_access"]

# The IAM actions behind each check.
ACTIONS = {
    "list": ("s3:ListBucket",),
    "read": ("s3:GetObject",),
    "write": ("s3:PutObject",),
    "delete": ("s3:DeleteObject",),
    "uploads": ("s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload"),
    "public access": ("s3:GetBucketPublicAccessBlock", "s3:GetBucketPolicyStatus"),
    "encryption": ("s3:GetEncryptionConfiguration",),
}
_OF_BUCKETS = ("s3:ListBucket", "s3:ListBucketMultipartUploads")  # the other actions apply to objects
_DENIED = {"AccessDenied", "403", "AllAccessDisabled", "Forbidden"}
# The error codes for a bucket without such a setting, or from a server without such a function.
_NOT_SET = {
    "NoSuchPublicAccessBlockConfiguration", "NoSuchBucketPolicy", "ServerSideEncryptionConfigurationNotFoundError",
}  # fmt: skip


class Result(StrEnum):
    """The outcome of a check."""

    ok = "ok"
    missing = "missing"  # a permission that training needs
    warning = "warning"
    unknown = "unknown"  # it could not be checked


class Check(NamedTuple):
    """One check: its name, its outcome, and the reason for users to read."""

    name: str
    result: Result
    detail: str


def check_access(path: str, *, writes: bool = False) -> list[Check]:
    """Checks access below the URL of an object store.

    Args:
        path: a bucket, folder or object.
        writes: also write and delete a small object in the folder.

    Raises:
        StorageError: the store does not answer, there is no such bucket, or the credentials are wrong.
    """
    url = parse_url(path)
    store = ObjectStore()
    listed, key = _list(store, path, writes)
    checks = [listed, _read(store, url, key)]
    if writes:
        checks += _write(store, url)
    if url.scheme != "s3":
        return checks
    session = new_session(url)
    client = new_client(url, session)
    if writes:
        checks.append(_uploads(client, url))
    return [
        *checks,
        *_public_access(client, new_client(url, session, anonymous=True), url, key),
        _encryption(client, url, key),
    ]


def _list(store: ObjectStore, path: str, writes: bool) -> tuple[Check, str]:
    """Returns the check, and the key of an object for `_read`; "" if none is known."""
    url, bucket = store.locate(path)
    import obstore

    try:
        with bucket.errors(url):
            page = next(iter(obstore.list(bucket.store, url.key or None, chunk_size=1)), None)
            if not page and url.key:  # a URL of a single object has nothing below it
                page = [obstore.head(bucket.store, url.key)]
    except FileNotFoundError:
        result = Result.ok if writes else Result.warning  # outputs may be the first objects there
        return Check("list", result, f"there is nothing below {path}"), ""
    except DeniedError:
        return Check("list", Result.missing, _needs("list", url)), ""
    key = str(page[0]["path"]) if page else ""
    return Check("list", Result.ok, f"{url.root}/{key}" if key else f"{path} is empty"), key


def _read(store: ObjectStore, url: ObjectUrl, key: str) -> Check:
    if not key:
        return Check("read", Result.unknown, "no object is known that could be read")
    path = f"{url.root}/{key}"
    try:
        with store.open(path) as file:
            file.read(1)
    except DeniedError:
        detail = f"{path}: {_needs('read', url)}; for objects encrypted by KMS also kms:Decrypt on their key"
        return Check("read", Result.missing, detail)
    except (StoreError, StoreUnavailableError):
        raise
    except OSError as error:
        return Check("read", Result.warning, f"{path}: {error.strerror}")
    return Check("read", Result.ok, path)


def _write(store: ObjectStore, url: ObjectUrl) -> Iterator[Check]:
    path = "/".join(filter(None, (url.root, url.key, f".model-trainer-{uuid.uuid4().hex}")))
    try:
        store.write(path, [b"written by model-trainer doctor"])
    except DeniedError:
        detail = f"{_needs('write', url)}; in a bucket encrypted by KMS also kms:GenerateDataKey and kms:Decrypt"
        yield Check("write", Result.missing, detail)
        return
    yield Check("write", Result.ok, path)
    try:
        store.delete(path)
    except DeniedError:
        yield Check("delete", Result.missing, f"{_needs('delete', url)}; {path} is left behind")
        return
    yield Check("delete", Result.ok, "the object just written")


def _uploads(client: Any, url: ObjectUrl) -> Check:
    """Whether interrupted multipart uploads, which are billed, can be listed, and their number."""
    prefix = f"{url.key}/" if url.key else ""
    answer, problem = _try_request(lambda: client.list_multipart_uploads(Bucket=url.bucket, Prefix=prefix))
    if problem in _DENIED:
        return Check("uploads", Result.warning, f"interrupted ones would stay: {_needs('uploads', url)}")
    if problem:
        return Check("uploads", Result.unknown, f"the server answers {problem}")
    count = len(answer.get("Uploads", []))
    if count:
        return Check("uploads", Result.warning, f"{count} interrupted or running; --resume removes those of its run")
    return Check("uploads", Result.ok, "none is interrupted")


def _public_access(client: Any, anonymous: Any, url: ObjectUrl, key: str) -> Iterator[Check]:
    requests: dict[str, Callable[[], Any]] = {
        "list": lambda: anonymous.list_objects_v2(Bucket=url.bucket, Prefix=url.key, MaxKeys=1)
    }
    if key:
        requests["read"] = lambda: anonymous.head_object(Bucket=url.bucket, Key=key)
    problems = {name: _try_request(request)[1] for name, request in requests.items()}
    open_to_all = [name for name, problem in problems.items() if not problem]
    if open_to_all:
        may = " and ".join(open_to_all)
        detail = f"anyone may {may} without credentials; block public access to the bucket, unless that is intended"
        yield Check("public access", Result.warning, detail)
        return
    unclear = next((problem for problem in problems.values() if problem not in _DENIED), "")
    if unclear:
        detail = f"a request without credentials was neither answered nor refused: {unclear}"
        yield Check("public access", Result.unknown, detail)
        return
    answer, problem = _try_request(lambda: client.get_public_access_block(Bucket=url.bucket))
    settings = answer.get("PublicAccessBlockConfiguration", {})
    blocked = bool(settings) and all(settings.values())
    status, status_problem = _try_request(lambda: client.get_bucket_policy_status(Bucket=url.bucket))
    if status_problem == "" and status.get("PolicyStatus", {}).get("IsPublic") and not blocked:
        yield Check("public access", Result.warning, "the policy of the bucket makes it public")
    elif blocked:
        yield Check("public access", Result.ok, "blocked")
    elif problem in _DENIED:
        needed = _names("public access")
        detail = f"requests without credentials are refused; whether access is blocked for good is shown with {needed}"
        yield Check("public access", Result.unknown, detail)
    elif problem in _NOT_SET:
        yield Check("public access", Result.warning, "not blocked for the bucket, though nothing is public now")
    else:
        yield Check("public access", Result.ok, "requests without credentials are refused")


def _encryption(client: Any, url: ObjectUrl, key: str) -> Check:
    answer, problem = _try_request(lambda: client.get_bucket_encryption(Bucket=url.bucket))
    if not problem:
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        kinds = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", "") for rule in rules]
        if not any(kinds):
            return Check("encryption", Result.unknown, "the server does not say")
        return Check("encryption", Result.ok, " ".join(filter(None, kinds)))
    if key:
        head, head_problem = _try_request(lambda: client.head_object(Bucket=url.bucket, Key=key))
        if not head_problem and head.get("ServerSideEncryption"):
            return Check("encryption", Result.ok, f"{head['ServerSideEncryption']} (of {url.root}/{key})")
    if problem in _DENIED:
        return Check("encryption", Result.unknown, f"shown with {_names('encryption')}")
    if problem not in _NOT_SET:
        return Check("encryption", Result.unknown, f"the server answers {problem}")
    return Check("encryption", Result.warning, "objects are not encrypted by the server; set a default for the bucket")


def _try_request(request: Callable[[], Any]) -> tuple[Any, str]:
    """Calls a boto3 request; returns its response and "", or {} and the code of its error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return request(), ""
    except ClientError as error:
        return {}, str(error.response.get("Error", {}).get("Code") or "an error")
    except BotoCoreError as error:
        return {}, type(error).__name__


def _needs(name: str, url: ObjectUrl) -> str:
    if url.scheme != "s3":
        return "the credentials have no permission for it"
    below = f"{url.bucket}/{url.key}/*" if url.key else f"{url.bucket}/*"
    resources = [url.bucket if action in _OF_BUCKETS else below for action in ACTIONS[name]]
    needed = (f"{action} on arn:aws:s3:::{each}" for action, each in zip(ACTIONS[name], resources, strict=True))
    return f"needs {' and '.join(needed)}"


def _names(name: str) -> str:
    return " and ".join(ACTIONS[name])
