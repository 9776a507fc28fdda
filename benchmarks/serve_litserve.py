"""`serve.py`'s rival LitServe, with batching."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from serve_rivals import load_decoder, load_engine, read_settings  # isort: skip


class Api(litserve.LitAPI):
    """Expects an image as the body of the request, which is faster in LitServe than JSON with base64 or forms."""

    def setup(self, device: str) -> None:
        folder, settings = read_settings()
        self.decode, self.engine = load_decoder(settings), load_engine(folder, settings)

    def decode_request(self, request: bytes) -> np.ndarray:
        return self.decode(request)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.engine(x if x.ndim == 4 else x[None])  # without batching `x` is a single image

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"prediction": output.reshape(-1).tolist()}


# LitServe makes a FastAPI route from the annotation, which has to be an object, not a string.
Api.decode_request.__annotations__ = {"request": Annotated[bytes, Body()]}


if __name__ == "__main__":
    _, settings = read_settings()
    api = Api(max_batch_size=settings.get("max_batch", 1), batch_timeout=settings.get("wait_ms", 0) / 1000)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=settings.get("workers", 1),
        fast_queue=settings.get("fast_queue", False),
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=settings.get("api_servers", 1),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
