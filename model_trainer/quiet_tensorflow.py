"""Importing this imports TensorFlow as it should start: with all CUDA libraries, without the notes of its C++ side.

TensorFlow 2.21 prints them whatever TF_CPP_MIN_LOG_LEVEL says.
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

        tf.config.list_physical_devices("GPU")  # the CUDA side speaks up at the first look
