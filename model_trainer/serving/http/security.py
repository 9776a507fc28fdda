"""Who may call: the token, and for browsers the Host and Origin headers.

A page of another site that a browser shows can send requests to the loopback address, and with DNS rebinding reads
the answers. Such a request has the other site's name in Host or in Origin.
"""

from __future__ import annotations

import hmac
import re

from model_trainer.serving.http.errors import HttpError
from model_trainer.serving.http.requests import Request
from model_trainer.serving.options import ServeOptions

__all__ = ["Security"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
PUBLIC = frozenset({"/", "/ping", "/openapi.json"})
PUBLIC_FOLDER = "/static/"
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/?#\s]+)(?::[0-9]*)?")  # a name or an address, and a port
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Security:
    """Decides whether a request may be answered, by the options alone."""

    def __init__(self, options: ServeOptions) -> None:
        self._token = None if options.token is None else options.token.get_secret_value().encode()
        self._allows_anonymous = options.allows_anonymous
        hosts = {name.lower() for name in options.allowed_hosts}
        # The names of a server that is bound to another address are unknown; the token protects it then.
        self._checks_host = bool(hosts) or options.is_loopback
        bound = f"[{options.host}]" if ":" in options.host else options.host
        self._hosts = LOOPBACK | hosts | {bound.lower()}

    def check(self, request: Request) -> None:
        """Raises HttpError 403 for a wrong Host or Origin, 401 without the right token."""
        if not self._allows_anonymous:
            self._check_host(request.headers.get(b"host", b"").decode("latin-1").lower(), request)
        is_public = request.path in PUBLIC or request.path.startswith(PUBLIC_FOLDER)
        if not is_public and not self.has_token(request.headers.get(b"authorization", b"")):
            raise HttpError(
                401,
                "The token is missing or wrong; send the header Authorization: Bearer TOKEN.",
                ((b"www-authenticate", b"Bearer"),),
                closes=request.method == "POST",
            )

    def has_token(self, authorization: bytes) -> bool:
        """Whether the value of an Authorization header has the token, or none is needed."""
        if self._token is None:
            return True
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    def _check_host(self, host: str, request: Request) -> None:
        if self._checks_host and _without_port(host) not in self._hosts:
            raise HttpError(
                403, "The Host header is not a name of this server; --allowed-host NAME adds one.", closes=True
            )
        origin = request.headers.get(b"origin")
        if origin is None:
            return
        scheme, _, authority = origin.decode("latin-1").lower().partition("://")
        port = DEFAULT_PORTS.get(scheme, "")
        if not authority or authority.removesuffix(port) != host.removesuffix(port):
            raise HttpError(403, "Pages of other sites may not call this server (Origin).", closes=True)


def _without_port(host: str) -> str:
    match = HOST.fullmatch(host)
    return match[1] if match else ""
