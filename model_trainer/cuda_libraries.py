"""Finds CUDA libraries that pip installed, and loads the one that TensorFlow 2.21 does not find by itself."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

__all__ = ["cuda_folders", "preload_cuda"]

# libtensorflow_framework.so.2 of TensorFlow 2.21 opens all CUDA libraries. Its search path has the folder of every
# NVIDIA package except cusolver's. Without that library TensorFlow registers no GPU at all.
_NOT_FOUND_BY_TENSORFLOW = ("libcusolver.so.11",)


def cuda_folders() -> tuple[str, ...]:
    """Returns the `nvidia/*/lib` folders that NVIDIA's pip packages installed next to TensorFlow."""
    spec = importlib.util.find_spec("nvidia")
    locations = spec.submodule_search_locations if spec else None
    return tuple(str(folder) for location in locations or () for folder in sorted(Path(location).glob("*/lib")))


def preload_cuda() -> tuple[str, ...]:
    """Loads the libraries that TensorFlow would not find; call it before the first `import tensorflow`.

    Once a library is loaded, later requests for its name find it. Without NVIDIA's pip packages nothing happens.

    Returns:
        Paths of the loaded files.
    """
    files = [Path(folder, name) for name in _NOT_FOUND_BY_TENSORFLOW for folder in cuda_folders()]
    return tuple(str(file) for file in files if file.exists() and _load(file))


def _load(file: Path) -> bool:
    try:
        ctypes.CDLL(str(file))
    except OSError:  # TensorFlow will report the same error, and continue without a GPU
        return False
    return True
