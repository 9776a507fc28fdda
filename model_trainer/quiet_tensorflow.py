"""Imports TensorFlow with all CUDA libraries, and without the start-up messages of its C++ libraries.

TensorFlow 2.21 prints these messages at any TF_CPP_MIN_LOG_LEVEL.
"""

from __future__ import annotations

import sys

from model_trainer.cuda_libraries import preload_cuda
from model_trainer.stderr_filter import filtered_stderr

__all__: list[str] = []

if "tensorflow" not in sys.modules:
    preload_cuda()
    with filtered_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")  # CUDA libraries print their messages at the first use
