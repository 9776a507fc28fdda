"""Checks which CUDA libraries load on this machine, and queries the driver, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_trainer.cuda_libraries import cuda_folders
from model_trainer.diagnosis.gpu.facts import Driver, DriverGpu, Library

__all__ = ["CUDA_LIBRARIES", "probe_libraries"]

# The files that CUDA 12 and cuDNN 9 consist of, those first that others depend on.
# `needed` follows TensorFlow's DsoLoader::MaybeTryDlopenGPULibraries: it registers no GPU when one of these is missing.
CUDA_LIBRARIES = (
    Library("libcudart.so.12", True, "nvidia-cuda-runtime-cu12"),
    Library("libnvJitLink.so.12", False, "nvidia-nvjitlink-cu12"),  # for cuSPARSE and cuSOLVER
    Library("libnvrtc.so.12", False, "nvidia-cuda-nvrtc-cu12"),  # cuDNN compiles some kernels with it
    Library("libcublasLt.so.12", True, "nvidia-cublas-cu12"),
    Library("libcublas.so.12", True, "nvidia-cublas-cu12"),
    Library("libcusparse.so.12", True, "nvidia-cusparse-cu12"),
    Library("libcusolver.so.11", True, "nvidia-cusolver-cu12"),
    Library("libcufft.so.11", True, "nvidia-cufft-cu12"),
    Library("libcurand.so.10", False, "nvidia-curand-cu12"),
    Library("libcudnn.so.9", True, "nvidia-cudnn-cu12"),
    Library("libnccl.so.2", False, "nvidia-nccl-cu12"),  # all-reduce between GPUs
    Library("libcupti.so.12", False, "nvidia-cuda-cupti-cu12"),  # the profiler
)

_LOADER = str(Path(__file__).with_name("loader.py"))


def probe_libraries(
    libraries: Sequence[Library] = CUDA_LIBRARIES,
    *,
    folders: Sequence[str] | None = None,
    loader: Sequence[str] = (sys.executable, "-I", _LOADER),
    timeout_seconds: float = 60,
) -> tuple[tuple[Library, ...], Driver]:
    """Tries to load each library, and queries libcuda.so.1 for the GPUs.

    Args:
        libraries: what to load, in this order.
        folders: those of the libraries in pip's NVIDIA packages; None searches for them.
        loader: the command that loads them.
        timeout_seconds: a process that takes longer is killed.

    Returns:
        The libraries with `path` or `error`, and the driver with the fields that libcuda reports.
    """
    names = [library.name for library in libraries]
    probed: dict[str, Library] = {}
    driver = Driver()
    while remaining := [name for name in names if name not in probed]:
        request = {"libraries": remaining, "folders": list(cuda_folders() if folders is None else folders)}
        lines, ending = _run([*loader, json.dumps(request)], timeout_seconds)
        by_name = {library.name: library for library in libraries}
        current = remaining[0]
        for line in lines:
            if "driver" in line:
                driver = _driver(line["driver"])
            elif "loading" in line:
                current = line["loading"]
            else:
                answer = line["library"]
                library = by_name[answer["name"]]
                probed[library.name] = Library(
                    library.name,
                    library.needed,
                    library.package,
                    path=answer.get("path", ""),
                    version=answer.get("version", ""),
                    error=answer.get("error", ""),
                )
        if current not in probed:  # the process ended while loading it; the next process continues after it
            library = by_name[current]
            probed[current] = Library(library.name, library.needed, library.package, error=ending)
    return tuple(probed[name] for name in names), driver


def _run(command: list[str], timeout_seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The JSON lines that the command printed, and how it ended."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ending = f"loading took longer than {timeout_seconds:.0f} seconds"
    else:
        printed = completed.stdout
        ending = f"loading it ended the process with code {completed.returncode}"
    return [json.loads(line) for line in printed.splitlines() if line.endswith("}")], ending


def _driver(answer: dict[str, Any]) -> Driver:
    gpus = tuple(
        DriverGpu(gpu["name"], gpu["memory_bytes"], (gpu["compute_capability"][0], gpu["compute_capability"][1]))
        for gpu in answer.get("gpus", ())
    )
    return Driver(
        libcuda_error=answer.get("libcuda_error", ""),
        init_code=answer.get("init_code"),
        cuda_version=answer.get("cuda_version", ""),
        gpus=gpus,
    )
