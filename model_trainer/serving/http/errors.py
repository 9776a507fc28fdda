"""The errors that clients see: a status, a sentence that says what to change, and no internals of the server."""

from __future__ import annotations

from model_trainer.serving.answers import Busy, InferenceFailed, NotReady, TooSlow

__all__ = ["HttpError", "from_service"]


class HttpError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status code.
        message: for the client: what was expected, what was received, the cure. No path of the server.
        headers: further headers of the answer.
        closes: whether the connection is closed, because the rest of the body is not read.
    """

    def __init__(
        self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = (), *, closes: bool = False
    ) -> None:
        self.status = status
        self.message = message
        self.headers = (*headers, (b"connection", b"close")) if closes else headers
        super().__init__(message)


def from_service(error: NotReady | Busy | TooSlow | InferenceFailed) -> HttpError:
    """Returns the HTTP error for an exception of the service."""
    match error:
        case NotReady():
            return HttpError(503, "The model is not ready; GET /ping tells when it is.", ((b"retry-after", b"1"),))
        case Busy():
            seconds = str(error.retry_after_seconds)
            return HttpError(
                429,
                f"Too many images are being computed. Send the request again in {seconds} s.",
                ((b"retry-after", seconds.encode()),),
            )
        case TooSlow():
            return HttpError(504, "The answer took too long. Send the request again, with fewer images.")
        case InferenceFailed():
            return HttpError(500, "Inference failed; the server's log has the reason.")
