"""Converts the errors of an object store to OSErrors that give the cause, without the details of the request."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from model_trainer.errors import StorageError, UnavailableError
from model_trainer.storage.objects.urls import SCHEMES, ObjectUrl

__all__ = [
    "ChangedError",
    "DeniedError",
    "ExpiredError",
    "StoreError",
    "StoreUnavailableError",
    "as_os_errors",
    "code_in",
]


class _Readable(OSError):
    """Has the message "s3://photos/train: there is no bucket", for users."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}."


class StoreError(_Readable, StorageError):
    """A store refuses every request alike: wrong credentials, no permission, no such bucket."""


class DeniedError(StoreError):
    """The credentials, which are right, have no permission for a request."""


class StoreUnavailableError(_Readable, UnavailableError):
    """A store did not answer, or answered with server errors, in spite of retries; it may recover later."""


class ExpiredError(StoreUnavailableError):
    """The credentials have expired and could not be renewed."""


class ChangedError(_Readable):
    """An object is no longer the one that was listed, or that was read before."""


class _Cause(NamedTuple):
    kind: type[OSError]
    number: int
    reason: str


_DENIED = "the credentials have no permission for it{action}; `model-trainer doctor {folder}` names what is missing"
_EXPIRED = "the credentials have expired; renew them, for example by `aws sso login`"
_REGION = "the bucket is in another region than {region}{expected}; set its own with --region or AWS_REGION"
_NO_STORE = "{endpoint} does not answer as an S3 server does; check the endpoint with `model-trainer config`"
_NO_BUCKET = "there is no {kind} {bucket!r} at {endpoint}; check its name, and the endpoint with `model-trainer config`"
# By the error code in the response of S3, which other stores have adopted.
_CAUSES = {
    "NoSuchKey": _Cause(FileNotFoundError, errno.ENOENT, os.strerror(errno.ENOENT)),
    "NoSuchBucket": _Cause(StoreError, errno.ENOENT, _NO_BUCKET),
    "ContainerNotFound": _Cause(StoreError, errno.ENOENT, _NO_BUCKET),  # of Azure
    "AccessDenied": _Cause(DeniedError, errno.EACCES, _DENIED),
    "AllAccessDisabled": _Cause(DeniedError, errno.EACCES, _DENIED),
    "AccountProblem": _Cause(StoreError, errno.EACCES, "the account is disabled"),
    "InvalidAccessKeyId": _Cause(StoreError, errno.EACCES, "the access key does not exist at {endpoint}; {whence}"),
    "SignatureDoesNotMatch": _Cause(
        StoreError, errno.EACCES, "the secret key does not belong to the access key; {whence}"
    ),
    "InvalidToken": _Cause(StoreError, errno.EACCES, "the session token is not valid; {whence}"),
    "ExpiredToken": _Cause(ExpiredError, errno.EACCES, _EXPIRED),
    "ExpiredTokenException": _Cause(ExpiredError, errno.EACCES, _EXPIRED),
    "TokenRefreshRequired": _Cause(ExpiredError, errno.EACCES, _EXPIRED),
    "RequestTimeTooSkewed": _Cause(StoreError, errno.EACCES, "the clock of this machine is wrong"),
    "PermanentRedirect": _Cause(StoreError, errno.EINVAL, _REGION),
    "AuthorizationHeaderMalformed": _Cause(StoreError, errno.EINVAL, _REGION),
    "IllegalLocationConstraintException": _Cause(StoreError, errno.EINVAL, _REGION),
    "InvalidRange": _Cause(OSError, errno.EINVAL, "it ends before the first byte of the range"),
    "InvalidObjectState": _Cause(OSError, errno.EACCES, "the object is archived; restore it first"),
    "RequestTimeout": _Cause(StoreUnavailableError, errno.ETIMEDOUT, "the store has waited too long for the request"),
    "SlowDown": _Cause(StoreUnavailableError, errno.EAGAIN, "the store asks to slow down"),
    "ServiceUnavailable": _Cause(StoreUnavailableError, errno.EAGAIN, "the store is not available"),
    "InternalError": _Cause(StoreUnavailableError, errno.EIO, "the store has an internal error"),
    "XMinioStorageFull": _Cause(OSError, errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "QuotaExceeded": _Cause(OSError, errno.ENOSPC, "the quota is exceeded"),
}
_BY_STATUS = {
    "301": "PermanentRedirect", "307": "PermanentRedirect", "403": "AccessDenied", "404": "NoSuchKey",
    "408": "RequestTimeout", "416": "InvalidRange", "429": "SlowDown", "500": "InternalError",
    "502": "ServiceUnavailable", "503": "ServiceUnavailable", "504": "ServiceUnavailable", "507": "XMinioStorageFull",
}  # fmt: skip


@contextlib.contextmanager
def as_os_errors(
    url: ObjectUrl, endpoint: str = "", region: str = "", find_region: Callable[[], str] = str
) -> Iterator[None]:
    """Converts the errors of obstore inside the `with` block.

    Args:
        url: of the object or folder, which the error names.
        endpoint, region: of the store, for messages.
        find_region: called if the store rejects `region`; returns the region of the bucket, "" if it is unknown.
    """
    from obstore import exceptions

    name = "/".join(filter(None, (url.root, url.key)))
    try:
        yield
    except exceptions.AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
    except (exceptions.PreconditionError, exceptions.NotModifiedError):
        raise ChangedError(errno.ESTALE, "the object has changed in the meantime", name) from None
    except exceptions.BaseError as error:
        raise _as_os_error(error, url, name, endpoint, region, find_region) from None
    except FileNotFoundError as error:
        raise _as_os_error(error, url, name, endpoint, region, find_region) from None
    except ValueError as error:
        problem = _key_error(error, name)
        if problem is None:
            raise
        raise problem from None


def _key_error(error: Exception, name: str) -> OSError | None:
    """The error for a key that obstore does not accept; None if `error` has another cause."""
    text = str(error)
    key = re.search(r'Path "(.*?)" contained', text)
    if key is not None:
        reason = f'the key {key[1]!r} has an empty name, "." or "..", and cannot be read; rename or delete the object'
        return StoreError(errno.EINVAL, reason, name)
    if "Could not parse path" in text:
        return OSError(errno.EINVAL, "its name contains a control character", name)
    return None


def _folder_of(url: ObjectUrl, text: str) -> str:
    """What `model-trainer doctor` should check after a refusal: the path, or the folder written to and --write."""
    method = re.search(r"performing (\w+) ", text)
    writes = method is not None and method[1] in ("PUT", "POST", "DELETE")
    folder = url.key.rpartition("/")[0] if writes else url.key
    return "/".join(filter(None, (url.root, folder))) + (" --write" if writes else "")


def _as_os_error(
    error: Exception, url: ObjectUrl, name: str, endpoint: str, region: str, find_region: Callable[[], str]
) -> OSError:
    text = str(error)
    key_error = _key_error(error, name)
    if key_error is not None:
        return key_error
    code = code_in(text)
    cause = _CAUSES.get(code) or _CAUSES.get(_BY_STATUS.get(_status_in(text), ""))
    if cause is not None and code == "NoSuchKey" and "list-type=2" in text:  # a folder is never missing in S3
        return StoreError(errno.EPROTO, _NO_STORE.format(endpoint=endpoint or "the endpoint"), name)
    if cause is not None:
        kind, number, reason = cause
        in_answer = re.search(r"<Region>([\w-]+)|expecting '([\w-]+)'", text)
        right_region = (in_answer[1] or in_answer[2]) if in_answer else (find_region() if reason is _REGION else "")
        action = re.search(r"not authorized to perform: (\w+:\w+)", text)
        reason = reason.format(
            kind=SCHEMES[url.scheme],
            bucket=url.bucket,
            folder=_folder_of(url, text),
            whence="`model-trainer config` shows where it comes from",
            endpoint=endpoint or "this endpoint",
            region=region or "the configured one",
            expected=f": {right_region}" if right_region else "",
            action=f": {action[1]}" if action else "",
        )
        return kind(number, reason, name)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if "timed out" in text or "TimedOut" in text:
        return StoreUnavailableError(errno.ETIMEDOUT, f"{endpoint or 'the store'} did not answer in time", name)
    if "dns error" in text:
        return StoreUnavailableError(errno.EHOSTUNREACH, f"the host of {endpoint or 'the store'} is not known", name)
    if "certificate" in text.lower():
        reason = (
            f"the certificate of {endpoint or 'the store'} is not trusted; AWS_CA_BUNDLE names a file of trusted ones"
        )
        return StoreError(errno.EPROTO, reason, name)
    if "HTTP error" in text or "error sending request" in text or "Connect" in text:
        return StoreUnavailableError(errno.ECONNREFUSED, f"{endpoint or 'the store'} does not answer", name)
    if "ETag Header missing" in text or "invalid list response" in text.lower():
        return StoreError(errno.EPROTO, _NO_STORE.format(endpoint=endpoint or "the endpoint"), name)
    status = _status_in(text)
    answer = f"the store answered with status {status}" if status else _first_sentence(text)
    return StoreError(errno.EIO, f"{answer}{f' ({code})' if code else ''}", name)


def code_in(text: str) -> str:
    """The code in an error message, such as "NoSuchBucket", or else the code for its HTTP status, or else ""."""
    code = re.search(r"<Code>(\w+)<|\(code: (\w+)\)", text)  # the second form is for one of several objects to delete
    if code:
        return code[1] or code[2]
    if "redirect without LOCATION" in text:  # obstore reports neither the status nor the response
        return "PermanentRedirect"
    return _BY_STATUS.get(_status_in(text), "")


def _status_in(text: str) -> str:
    status = re.search(r"status code: (\d{3})", text)
    return status[1] if status else ""


def _first_sentence(text: str) -> str:
    """The beginning of a message, without URLs, which may contain a signature."""
    return re.sub(r"https?://\S+", "the endpoint", text.partition("\n")[0])[:200]
