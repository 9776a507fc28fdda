"""Checks that the endpoint of a bucket answers at all, before its first request: a wrong one is a user's mistake.

Later a store that does not answer may recover, and requests are retried for a minute.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlsplit

from model_trainer.messages import nearest
from model_trainer.storage.objects.errors import StoreError

__all__ = ["check_endpoint"]

_PAUSE_SECONDS = 0.2
_OF_A_REGION = re.compile(r"s3[.-]([a-z]+(?:-[a-z]+)+-\d+|[\w-]+)\.amazonaws\.com(?:\.cn)?")
_CURE = "Check it: `model-trainer config` shows its value and where that comes from"


def check_endpoint(endpoint: str, root: str, *, regions: Iterable[str] = (), seconds: float) -> None:
    """Opens a connection to the host of `endpoint` and closes it.

    Args:
        endpoint: URL of the server. Behind a proxy it is not checked.
        root: URL of the bucket, for messages.
        regions: names of regions, to suggest the right one for a host that does not exist.
        seconds: how long to retry, for a server that is just starting.

    Raises:
        StoreError: the host does not exist or does not answer.
    """
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=max(seconds, 0.1)) as connected:
                if parts.scheme == "https":
                    _check_https(connected, endpoint, root)
            return
        except StoreError:
            raise
        except socket.gaierror as error:
            problem = StoreError(errno.EHOSTUNREACH, _unknown_host(endpoint, host, regions), root)
            is_final = error.errno != socket.EAI_AGAIN
        except OSError as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else (error.strerror or "").lower()
            reason = f"there is no answer from the endpoint {endpoint} ({reason}). {_CURE}, and whether the server runs"
            problem, is_final = StoreError(error.errno or errno.ETIMEDOUT, reason, root), False
        if is_final or time.monotonic() + _PAUSE_SECONDS >= deadline:
            raise problem from None
        time.sleep(_PAUSE_SECONDS)


def _check_https(connected: socket.socket, endpoint: str, root: str) -> None:
    """Whether the server speaks TLS at all; its certificate is checked by the requests."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.wrap_socket(connected, server_hostname=urlsplit(endpoint).hostname).close()
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            reason = f"the server of the endpoint {endpoint} uses http, not https. {_CURE}"
            raise StoreError(errno.EPROTO, reason, root) from None


def _unknown_host(endpoint: str, host: str, regions: Iterable[str]) -> str:
    region = _OF_A_REGION.fullmatch(host)
    names = tuple(regions)
    if region and region[1] not in names:
        hint = nearest(region[1], names)
        return (
            f"there is no region {region[1]!r}.{hint} Set it with --region or AWS_REGION"
            if hint
            else (f"there is no region {region[1]!r}; set that of the bucket with --region or AWS_REGION")
        )
    return f"the host of the endpoint {endpoint} does not exist, or this machine has no network. {_CURE}"
