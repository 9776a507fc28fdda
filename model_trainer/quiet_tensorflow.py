"""Importing this imports TensorFlow as it should start: with all CUDA libraries, without the notes of its C++ side.

TensorFlow 2.21 prints them whatever TF_CPP_MIN_LOG_LEVEL says. Only lines known to be harmless are left out; all
others appear on standard error as they came.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from model_trainer.cuda_libraries import preload_cuda

__all__: list[str] = []

HARMLESS = (
    b"absl::InitializeLog()",
    b"oneDNN custom operations are on",
    b"Could not find cuda drivers on your machine",
    b"failed call to cuInit",  # said on every machine without a driver; script/GPUtest.py says what it means
    b"This TensorFlow binary is optimized",
    b"To enable the following instructions",
    b"factory for plugin",  # cuFFT, cuDNN and cuBLAS register twice
)


@contextlib.contextmanager
def _without_harmless_lines() -> Iterator[None]:
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)  # C++ writes to the descriptor, not to sys.stderr
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not any(words in line for words in HARMLESS):
                    os.write(2, line)


if "tensorflow" not in sys.modules:
    preload_cuda()
    with _without_harmless_lines():
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")  # the CUDA side speaks up at the first look
