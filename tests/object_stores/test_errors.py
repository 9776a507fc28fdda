"""The error answers of stores become errors that users understand; without a server."""

from __future__ import annotations

import errno

import pytest

from model_trainer.errors import StorageError
from model_trainer.storage.objects.errors import ChangedError, StoreError, StoreUnavailableError, as_os_errors
from model_trainer.storage.objects.urls import ObjectUrl

exceptions = pytest.importorskip("obstore.exceptions")

URL = ObjectUrl("s3", "photos", "train/1.jpg")


def message(error: Exception, url: ObjectUrl = URL) -> OSError:
    try:
        with as_os_errors(url, "https://s3.example.com", "eu-west-1"):
            raise error
    except OSError as converted:
        return converted


def generic(text: str) -> Exception:
    error: Exception = exceptions.GenericError(text)
    return error


def test_a_refused_request_names_the_missing_action() -> None:
    body = (
        "status code: 403, <Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/ann is not authorized "
        'to perform: s3:GetObject on resource: "arn:aws:s3:::photos/train/1.jpg"</Message></Error>'
    )
    error = message(exceptions.PermissionDeniedError(body))
    assert isinstance(error, StoreError)
    assert "train/1.jpg: the credentials have no permission for it: s3:GetObject;" in str(error)


def test_a_wrong_region_names_the_right_one() -> None:
    body = (
        "status code: 400, <Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'eu-west-1' is wrong; "
        "expecting 'us-west-2'</Message><Region>us-west-2</Region></Error>"
    )
    error = message(generic(body))
    assert isinstance(error, StoreError)
    assert "train/1.jpg: the bucket is in another region than eu-west-1: us-west-2;" in str(error)


def test_a_missing_bucket_is_not_a_missing_object() -> None:
    bucket = message(FileNotFoundError("status code: 404, <Error><Code>NoSuchBucket</Code></Error>"))
    assert isinstance(bucket, StoreError)
    assert bucket.errno == errno.ENOENT
    assert "train/1.jpg: there is no bucket 'photos' at https://s3.example.com" in str(bucket)
    key = message(FileNotFoundError("status code: 404, <Error><Code>NoSuchKey</Code></Error>"))
    assert not isinstance(key, StorageError)
    assert key.filename == "s3://photos/train/1.jpg"


def test_a_missing_container_of_azure_is_named_as_such() -> None:
    error = message(FileNotFoundError("status code: 404, <Code>ContainerNotFound</Code>"), ObjectUrl("az", "c-1", "a"))
    assert "az://c-1/a: there is no container 'c-1' at" in str(error)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("operation timed out", StoreUnavailableError, "did not answer in time"),
        (
            "dns error: failed to lookup address",
            StoreUnavailableError,
            "the host of https://s3.example.com is not known",
        ),
        ("error sending request: tcp connect error", StoreUnavailableError, "https://s3.example.com does not answer"),
        ("invalid peer certificate: UnknownIssuer", StoreError, "is not trusted; AWS_CA_BUNDLE names a file"),
        (
            "status code: 403, <Code>InvalidAccessKeyId</Code>",
            StoreError,
            "the access key does not exist at https://s3",
        ),
        (
            "status code: 403, <Code>SignatureDoesNotMatch</Code>",
            StoreError,
            "secret key does not belong to the access",
        ),
        ("status code: 403, <Code>RequestTimeTooSkewed</Code>", StoreError, "the clock of this machine is wrong"),
        ("status code: 400, <Code>Strange</Code>", StoreError, "the store answered with status 400 (Strange)"),
        ("status code: 502, <html>", StoreUnavailableError, "the store is not available"),
        ("status code: 403, <Code>AuthorizationPermissionMismatch</Code>", StoreError, "have no permission for it"),
        ("Generic S3 error: bad https://s3.example.com/a?X-Amz-Signature=1\nmore", StoreError, "bad the endpoint"),
    ],
)
def test_each_cause_has_a_message(text: str, kind: type[OSError], expected: str) -> None:
    error = message(generic(text))
    assert isinstance(error, kind)
    assert expected in str(error)
    assert "Signature" not in str(error)


def test_a_full_store_is_reported_as_a_full_disk() -> None:
    error = message(generic("status code: 507, <Code>XMinioStorageFull</Code>"))
    assert error.errno == errno.ENOSPC


def test_a_failed_conditional_request_means_that_the_object_has_changed() -> None:
    assert isinstance(message(exceptions.PreconditionError("status code: 412")), ChangedError)


def test_an_invalid_key_is_named() -> None:
    text = 'Failed to parse path: Path "train//1.jpg" contained empty path segment'
    assert "the key 'train//1.jpg' has an empty name" in str(message(ValueError(text)))


def test_other_exceptions_are_not_converted() -> None:
    with pytest.raises(ZeroDivisionError), as_os_errors(URL):
        raise ZeroDivisionError
