"""The errors of an object store as OSErrors that say what was wrong, without the request's details."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from model_trainer.errors import StorageError
from model_trainer.errors import UnavailableError as Unavailable
from model_trainer.storage.objects.urls import SCHEMES, ObjectUrl

__all__ = ["ChangedError", "DeniedError", "ExpiredError", "StoreError", "UnavailableError", "as_os_errors", "code_in"]


class _Readable(OSError):
    """Has the message "s3://photos/train: there is no bucket", for users."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}."


class StoreError(_Readable, StorageError):
    """A store refuses every request alike: wrong credentials, no permission, no such bucket."""


class DeniedError(StoreError):
    """The credentials, which are right, have no permission for a request."""


class UnavailableError(_Readable, Unavailable):
    """A store did not answer, or answered with server errors, in spite of repeated attempts; it may do so later."""


class ExpiredError(UnavailableError):
    """The credentials have expired and could not be renewed."""


class ChangedError(_Readable):
    """An object is no longer the one that was listed, or that was read before."""


class _Cause(NamedTuple):
    kind: type[OSError]
    number: int
    reason: str


_DENIED = "the credentials have no permission for it{action}; `model-trainer doctor {root}` names what is missing"
_EXPIRED = "the credentials have expired; renew them, for example by `aws sso login`"
_REGION = "the bucket is in another region than {region}{expected}; set that with --region or AWS_REGION"
_NO_BUCKET = "there is no {kind} {bucket!r} at {endpoint}; check its name, and the endpoint with `model-trainer config`"
# By the code in the answer of S3, which other stores have taken over.
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
    "RequestTimeout": _Cause(UnavailableError, errno.ETIMEDOUT, "the store has waited too long for the request"),
    "SlowDown": _Cause(UnavailableError, errno.EAGAIN, "the store asks to slow down"),
    "ServiceUnavailable": _Cause(UnavailableError, errno.EAGAIN, "the store is not available"),
    "InternalError": _Cause(UnavailableError, errno.EIO, "the store has an internal error"),
    "XMinioStorageFull": _Cause(OSError, errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "QuotaExceeded": _Cause(OSError, errno.ENOSPC, "the quota is exceeded"),
}
_BY_STATUS = {
    "301": "PermanentRedirect", "307": "PermanentRedirect", "403": "AccessDenied", "404": "NoSuchKey",
    "408": "RequestTimeout", "416": "InvalidRange", "429": "SlowDown", "500": "InternalError",
    "502": "ServiceUnavailable", "503": "ServiceUnavailable", "504": "ServiceUnavailable", "507": "XMinioStorageFull",
}  # fmt: skip


@contextlib.contextmanager
def as_os_errors(url: ObjectUrl, endpoint: str = "", region: str = "") -> Iterator[None]:
    """Converts the errors of obstore inside the `with` block.

    Args:
        url: of the object or folder, which the error names.
        endpoint, region: of the store, for messages.
    """
    from obstore import exceptions

    name = "/".join(filter(None, (url.root, url.key)))
    try:
        yield
    except exceptions.AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
    except (exceptions.PreconditionError, exceptions.NotModifiedError):
        raise ChangedError(errno.ESTALE, "the object has been changed meanwhile", name) from None
    except exceptions.BaseError as error:
        raise _as_os_error(error, url, name, endpoint, region) from None
    except FileNotFoundError as error:
        raise _as_os_error(error, url, name, endpoint, region) from None
    except ValueError as error:
        key = re.search(r'Path "(.*?)" contained', str(error))
        if key is None:
            raise
        reason = f'the key {key[1]!r} has an empty name, "." or "..", and cannot be read; rename or delete the object'
        raise StoreError(errno.EINVAL, reason, name) from None


def _as_os_error(error: Exception, url: ObjectUrl, name: str, endpoint: str, region: str) -> OSError:
    text = str(error)
    code = code_in(text)
    cause = _CAUSES.get(code) or _CAUSES.get(_BY_STATUS.get(_status_in(text), ""))
    if cause is not None:
        kind, number, reason = cause
        expected = re.search(r"<Region>([\w-]+)|expecting '([\w-]+)'", text)
        action = re.search(r"not authorized to perform: (\w+:\w+)", text)
        reason = reason.format(
            kind=SCHEMES[url.scheme],
            bucket=url.bucket,
            root=url.root,
            whence="`model-trainer config` shows where it comes from",
            endpoint=endpoint or "this endpoint",
            region=region or "the configured one",
            expected=f": {expected[1] or expected[2]}" if expected else "",
            action=f": {action[1]}" if action else "",
        )
        return kind(number, reason, name)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if "timed out" in text or "TimedOut" in text:
        return UnavailableError(errno.ETIMEDOUT, f"{endpoint or 'the store'} did not answer in time", name)
    if "dns error" in text:
        return UnavailableError(errno.EHOSTUNREACH, f"the host of {endpoint or 'the store'} is not known", name)
    if "certificate" in text.lower():
        return StoreError(errno.EPROTO, f"the certificate of {endpoint or 'the store'} is not trusted", name)
    if "HTTP error" in text or "error sending request" in text or "Connect" in text:
        return UnavailableError(errno.ECONNREFUSED, f"{endpoint or 'the store'} does not answer", name)
    status = _status_in(text)
    said = f"the store answered with status {status}" if status else _first_sentence(text)
    return StoreError(errno.EIO, f"{said}{f' ({code})' if code else ''}", name)


def code_in(text: str) -> str:
    """The code in the message of an error, such as "NoSuchBucket"; without one that of its status; or ""."""
    code = re.search(r"<Code>(\w+)</Code>|\(code: (\w+)\)", text)  # the second is of one object of several to delete
    if code:
        return code[1] or code[2]
    if "redirect without LOCATION" in text:  # whose status and answer obstore does not give
        return "PermanentRedirect"
    return _BY_STATUS.get(_status_in(text), "")


def _status_in(text: str) -> str:
    status = re.search(r"status code: (\d{3})", text)
    return status[1] if status else ""


def _first_sentence(text: str) -> str:
    """The beginning of a message, without URLs, which may contain a signature."""
    return re.sub(r"https?://\S+", "the endpoint", text.partition("\n")[0])[:200]
