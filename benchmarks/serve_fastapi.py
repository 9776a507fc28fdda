"""`serve.py`'s rival FastAPI: a route that decodes an image and calls `model.predict`."""

from __future__ import annotations

import sys
import threading
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Body, FastAPI

from serve_rivals import load_decoder, load_keras, preprocess, read_settings  # isort: skip

app = FastAPI()
folder, settings = read_settings()
decode, model = load_decoder(settings), load_keras(folder)
model.predict(np.zeros((1, 224, 224, 3), np.float32), verbose=0)
lock = threading.Lock()


@app.post("/predict")
def predict(image: Annotated[bytes, Body()]) -> dict[str, Any]:  # FastAPI calls it in a thread pool
    pixels = preprocess(decode(image)[None].astype(np.float32))
    if not settings.get("lock"):
        return {"prediction": model.predict(pixels, verbose=0)[0].tolist()}
    with lock:
        return {"prediction": model.predict(pixels, verbose=0)[0].tolist()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
