"""Queries NVIDIA's management library (NVML, the one behind nvidia-smi) for the driver and the GPUs.

It ignores CUDA_VISIBLE_DEVICES, and thus distinguishes hidden GPUs from missing ones.
It runs in a process of its own (`python -m ...gpu.nvml`), because a broken driver can hang or crash its caller.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pynvml

from model_trainer.diagnosis.gpu.process import run_answering

__all__ = ["NvmlAnswer", "query_nvml", "read_nvml"]

_WORKER = (sys.executable, "-P", "-m", "model_trainer.diagnosis.gpu.nvml")


@dataclass(frozen=True)
class NvmlAnswer:
    """The answer of NVML; all but the code is empty if there is no NVML."""

    driver_version: str = ""  # such as "550.54.15"
    gpus: tuple[str, ...] = ()  # names of the GPUs that this user may use
    code: int | None = None  # an nvmlReturn_t, 0 for success; None if there was no answer
    error: str = ""  # why something could not be read


def query_nvml(worker: Sequence[str] = _WORKER, *, silence_seconds: float = 30) -> NvmlAnswer:
    """Queries NVML in another process.

    Args:
        worker: the command that queries NVML and prints its answer as a JSON object.
        silence_seconds: the process is killed if it does not answer for this long.
    """
    answers: list[Mapping[str, Any]] = []
    failure, _ = run_answering(worker, answers.append, environment=os.environ, silence_seconds=silence_seconds)
    if not answers:
        return NvmlAnswer(error=f"querying NVML failed: {failure or 'it gave no answer'}")
    return NvmlAnswer(**{**answers[0], "gpus": tuple(answers[0]["gpus"])})


def read_nvml() -> NvmlAnswer:
    """Queries NVML in this process, which it may hang or crash."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as problem:  # part of the driver; the check of libcuda.so.1 reports it
        return NvmlAnswer(code=problem.value)
    except pynvml.NVMLError as problem:
        return NvmlAnswer(code=problem.value, error=str(problem))
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as problem:
        return NvmlAnswer(code=problem.value, error=str(problem))
    names: list[str] = []
    problems: list[tuple[int, str]] = []
    for index in range(count):
        try:
            names.append(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index)))
        except pynvml.NVMLError as problem:  # a GPU of another user's job, or one that fell off the bus
            problems.append((problem.value, f"GPU {index}: {problem}"))
    # One GPU that answers is enough to train on; the code then means success.
    code = problems[0][0] if problems and not names else 0
    return NvmlAnswer(version, tuple(names), code, "; ".join(message for _, message in problems))


if __name__ == "__main__":
    print(json.dumps(asdict(read_nvml())))
