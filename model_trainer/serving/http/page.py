"""The page at `/`: plain HTML, CSS and JavaScript, which ask for nothing but this server."""

from __future__ import annotations

import mimetypes
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

# No script and no style in the HTML itself, and nothing from elsewhere: a label of an untrusted model runs no code.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self)",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Returns the routes of the page and of its files under `/static/`, with their security headers."""
    folder = resources.files("model_trainer.serving.http").joinpath("static")
    names = sorted(file.name for file in folder.iterdir())
    return [
        _route("/" if name == "index.html" else f"/static/{name}", folder.joinpath(name).read_bytes(), name)
        for name in names
    ]


def _route(path: str, content: bytes, name: str) -> Route:
    # By Python's built-in table, not the machine's, which may map JavaScript to text/plain.
    media_type = mimetypes.MimeTypes().guess_type(name)[0]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer, methods=["GET"])
