"""Loads CUDA's libraries one after another and prints the results, one JSON object per line.

It runs in a process of its own (`python loader.py REQUEST`): a damaged library can kill the process that loads it, and
a library that is loaded here must not be available to TensorFlow, which may not find it by itself.
Only the standard library is imported, so that the process starts in a fraction of a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# CUdevice_attribute values of cuda.h.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


def load_library(name: str, folders: Sequence[str]) -> dict[str, str]:
    """Loads the library from where TensorFlow would load it.

    Args:
        name: file name, such as `libcudnn.so.9`.
        folders: the folders of pip's NVIDIA packages.

    Returns:
        `name`, and `path` with `version`, or `error`.
    """
    # The search order for a library that TensorFlow loads: this variable, TensorFlow's own search path (with pip's
    # folders), the system.
    search_path = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    files = [str(Path(folder, name)) for folder in (*search_path, *folders) if folder and Path(folder, name).exists()]
    error = ""
    for candidate in (*files, name):
        try:
            library = ctypes.CDLL(candidate)
        except OSError as problem:
            error = error or str(problem)
            continue
        return {"name": name, "path": _path_of(candidate), "version": _version_of(name, library)}
    return {"name": name, "error": error}


def read_driver() -> dict[str, Any]:
    """Queries libcuda.so.1 for the driver's CUDA version and the GPUs; the fields are those of `facts.Driver`."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as problem:
        return {"libcuda_error": str(problem)}
    code = cuda.cuInit(0)
    driver = {"init_code": code, "cuda_version": _dotted(_read_int(cuda.cuDriverGetVersion), 1000, 10)}
    if code != 0:
        return driver
    count = _read_int(cuda.cuDeviceGetCount)
    return driver | {"gpus": [_gpu(cuda, index) for index in range(count)]}


def _gpu(cuda: ctypes.CDLL, index: int) -> dict[str, Any]:
    handle = ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    memory = ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    major = _read_int(lambda out: cuda.cuDeviceGetAttribute(out, _CAPABILITY_MAJOR, handle))
    minor = _read_int(lambda out: cuda.cuDeviceGetAttribute(out, _CAPABILITY_MINOR, handle))
    return {"name": name.value.decode(), "memory_bytes": memory.value, "compute_capability": [major, minor]}


def _read_int(function: Callable[[Any], int]) -> int:
    """The number that a C function writes through its pointer; 0 when it reports an error."""
    value = ctypes.c_int()
    return value.value if function(ctypes.byref(value)) == 0 else 0


def _version_of(name: str, library: ctypes.CDLL) -> str:
    try:
        if name.startswith("libcudart."):
            return _dotted(_read_int(library.cudaRuntimeGetVersion), 1000, 10)
        if name.startswith("libcudnn."):
            library.cudnnGetVersion.restype = ctypes.c_size_t
            return _dotted(library.cudnnGetVersion(), 10000, 100, 1)
        if name.startswith("libnccl."):
            return _dotted(_read_int(library.ncclGetVersion), 10000, 100, 1)
    except AttributeError:  # a library of this name without this function is not NVIDIA's
        pass
    return ""


def _dotted(number: int, *units: int) -> str:
    """`_dotted(12040, 1000, 10)` is "12.4"; empty for 0."""
    digits = []
    rest = number
    for unit in units:
        digits.append(str(rest // unit))
        rest %= unit
    return ".".join(digits) if number else ""


def _path_of(candidate: str) -> str:
    """The file behind a bare library name, from the list of files mapped into this process."""
    if "/" in candidate:
        return candidate
    try:
        mapped = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return candidate
    return next((line[line.index("/") :] for line in mapped if f"/{candidate}" in line), candidate)


def main() -> None:
    request = json.loads(sys.argv[1])
    print(json.dumps({"driver": read_driver()}), flush=True)
    for name in request["libraries"]:
        print(json.dumps({"loading": name}), flush=True)
        print(json.dumps({"library": load_library(name, request["folders"])}), flush=True)


if __name__ == "__main__":
    main()
