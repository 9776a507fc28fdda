"""`serve.py`'s rival mosec, with dynamic batching, and decoding in the same stage or in a separate one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from mosec import Server, Worker

from serve_rivals import load_decoder, load_engine, read_settings  # isort: skip


class Decode(Worker):
    """Stage that decodes the body of a request to pixels."""

    def __init__(self) -> None:
        super().__init__()
        _, settings = read_settings()
        self.decode = load_decoder(settings)

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)  # a memoryview, which TensorFlow does not decode

    def forward(self, data: bytes) -> np.ndarray:
        return self.decode(data)


class Compute(Worker):
    """Stage that computes probabilities from pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = load_engine(*read_settings())

    def forward(self, data: Any) -> Any:  # a list with dynamic batching, else one image
        if self.max_batch_size == 1:
            return {"prediction": self.engine(data[None])[0].tolist()}
        return [{"prediction": row.tolist()} for row in self.engine(np.stack(data))]


class DecodeAndCompute(Decode, Compute):
    """Stage that does both, so that no pixels pass between processes."""

    def forward(self, data: Any) -> Any:
        if self.max_batch_size == 1:
            return Compute.forward(self, self.decode(data))
        return Compute.forward(self, [self.decode(image) for image in data])


if __name__ == "__main__":
    _, settings = read_settings()
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", sys.argv[1], "--timeout", "60000", "--log-level", "warning"]
    server = Server()
    batching = {"max_batch_size": settings.get("max_batch", 1), "max_wait_time": settings.get("wait_ms", 1)}
    if settings.get("decoders"):
        server.append_worker(Decode, num=settings["decoders"])
        server.append_worker(Compute, num=settings.get("workers", 1), **batching)
    else:
        server.append_worker(DecodeAndCompute, num=settings.get("workers", 1), **batching)
    server.run()
