"""One line of JSON on standard output for each request."""

from __future__ import annotations

import contextlib
import json
import sys
import time

from model_trainer.serving.http.requests import Request

__all__ = ["log_request"]

MAX_CHARACTERS = 200  # of a text that the client chooses


def log_request(
    request: Request,
    *,
    query: str,
    status: int,
    seconds: float,
    num_bytes_out: int,
) -> None:
    """Writes the line of a request that has been answered.

    Args:
        query: the known parameters of the query, such as "top_k=5"; not the others, which may be secrets.
    """
    now = time.time()
    client = request.scope.get("client")
    path = request.path[:MAX_CHARACTERS] + (f"?{query}" if query else "")
    # Texts are escaped by `json`, so that no client can write a line of its own; numbers need no encoder.
    line = (
        f'{{"time": "{time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))}.{int(now % 1 * 1000):03}Z", '
        f'"request_id": "{request.id.decode()}", "client": {json.dumps(client[0] if client else None)}, '
        f'"method": {json.dumps(request.method[:MAX_CHARACTERS])}, "path": {json.dumps(path)}, '
        f'"status": {status}, "seconds": {seconds:.6f}, "bytes_in": {request.num_bytes_in}, '
        f'"bytes_out": {num_bytes_out}, "images": {request.num_images}, '
        f'"queue_seconds": {request.queue_seconds:.6f}, "compute_seconds": {request.compute_seconds:.6f}}}\n'
    )
    # The log may be a closed pipe; requests are answered all the same.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line)
        sys.stdout.flush()
