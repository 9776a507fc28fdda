"""Finds pip's CUDA libraries, and loads the one that TensorFlow 2.21 does not find by itself."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

__all__ = ["cuda_folders", "preload_cuda"]

# The search path inside TensorFlow 2.21's libtensorflow_framework.so.2, which opens all of CUDA's libraries, names the
# folder of every NVIDIA package but cusolver's. Without this library TensorFlow registers no GPU at all.
_NOT_FOUND_BY_TENSORFLOW = ("libcusolver.so.11",)


def cuda_folders() -> tuple[str, ...]:
    """The `nvidia/*/lib` folders that pip's NVIDIA packages have put beside TensorFlow."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return tuple(str(folder) for place in places or () for folder in sorted(Path(place).glob("*/lib")))


def preload_cuda() -> tuple[str, ...]:
    """Loads what TensorFlow would look for in vain; call it before the first `import tensorflow`.

    A library that is already loaded under its name is found by every later request for that name.
    Where pip's NVIDIA packages are not installed, nothing happens.

    Returns:
        The files that were loaded.
    """
    files = [Path(folder, name) for name in _NOT_FOUND_BY_TENSORFLOW for folder in cuda_folders()]
    return tuple(str(file) for file in files if file.exists() and _load(file))


def _load(file: Path) -> bool:
    try:
        ctypes.CDLL(str(file))
    except OSError:  # TensorFlow will say the same of it, and then go on without a GPU
        return False
    return True
