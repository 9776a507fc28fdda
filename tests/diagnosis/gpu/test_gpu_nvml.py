"""Answers of NVML through NVIDIA's own Python bindings; only the C library behind them is fake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from model_trainer.diagnosis.gpu.nvml import NvmlAnswer, query_nvml, read_nvml


def no_library(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


def nvml(*, init_code: int = 0, gpus: Sequence[str | int] = ()) -> Callable[[str], SimpleNamespace]:
    """A loader of a fake libnvidia-ml.so.1; each of `gpus` is the name of a GPU or the error code of opening it."""

    def write(out: Any, value: Any) -> int:
        getattr(out, "_obj", out).value = value
        return 0

    opened: list[str | int] = []

    def open_gpu(index: Any, out: Any) -> int:
        opened.append(gpus[index.value])
        return opened[-1] if isinstance(opened[-1], int) else 0

    return lambda name: SimpleNamespace(
        nvmlInitWithFlags=lambda flags: init_code,
        nvmlSystemGetDriverVersion=lambda out, length: write(out, b"550.54.15"),
        nvmlDeviceGetCount_v2=lambda out: write(out, len(gpus)),
        nvmlDeviceGetHandleByIndex_v2=open_gpu,
        nvmlDeviceGetName=lambda device, out, length: write(out, str(opened[-1]).encode()),
    )


Load = Callable[[Callable[[str], Any]], None]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Replaces libnvidia-ml.so.1."""

    def replace_library(opener: Callable[[str], Any]) -> None:
        monkeypatch.setattr(pynvml, "nvmlLib", None)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(pynvml, "CDLL", opener)

    return replace_library


def test_the_names_of_all_gpus_and_the_driver_version_are_read(load: Load) -> None:
    load(nvml(gpus=["NVIDIA A100", "Tesla T4"]))
    assert read_nvml() == NvmlAnswer("550.54.15", ("NVIDIA A100", "Tesla T4"), 0)


def test_cuda_visible_devices_hides_no_gpus_from_nvml(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    load(nvml(gpus=["Tesla T4"]))
    assert read_nvml().gpus == ("Tesla T4",)


def test_a_machine_without_nvml_is_not_an_error(load: Load) -> None:
    load(no_library)
    assert read_nvml() == NvmlAnswer(code=12)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (pynvml.NVMLError_DriverNotLoaded, "Driver Not Loaded"),
        (pynvml.NVMLError_LibRmVersionMismatch, "RM has detected an NVML/RM version mismatch."),
        (pynvml.NVMLError_NoPermission, "Insufficient Permissions"),
        (pynvml.NVMLError_Unknown, "Unknown Error"),
    ],
)
def test_a_driver_that_fails_to_initialize_gives_its_error_code_and_message(
    load: Load, error: type[pynvml.NVMLError], message: str
) -> None:
    load(nvml(init_code=error().value))
    assert read_nvml() == NvmlAnswer(code=error().value, error=message)


def test_a_gpu_without_permission_is_left_out(load: Load) -> None:
    load(nvml(gpus=[pynvml.NVML_ERROR_NO_PERMISSION, "Tesla T4"]))
    assert read_nvml() == NvmlAnswer("550.54.15", ("Tesla T4",), 0, "GPU 0: Insufficient Permissions")


def test_the_error_code_of_a_lost_gpu_is_reported_if_there_is_no_other(load: Load) -> None:
    load(nvml(gpus=[pynvml.NVML_ERROR_GPU_IS_LOST]))
    assert read_nvml() == NvmlAnswer("550.54.15", (), pynvml.NVML_ERROR_GPU_IS_LOST, "GPU 0: GPU is lost")


def test_an_nvml_library_without_a_function_is_an_error(load: Load) -> None:
    load(lambda name: SimpleNamespace(nvmlInitWithFlags=lambda flags: 0))
    assert read_nvml() == NvmlAnswer(code=pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, error="Function Not Found")


def test_a_real_worker_finds_nvml_if_this_machine_has_it() -> None:
    is_installed = os.path.exists("/proc/driver/nvidia/version") or find_library("nvidia-ml")
    assert (query_nvml().code == 12) == (not is_installed)


def worker(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_driver_that_hangs_is_an_error() -> None:
    answer = query_nvml(worker("import time; time.sleep(60)"), silence_seconds=0.2)
    assert answer == NvmlAnswer(error="querying NVML failed: gave no answer for 0.2 seconds")


def test_a_driver_that_crashes_is_an_error() -> None:
    answer = query_nvml(worker("import os; os.abort()"))
    assert answer == NvmlAnswer(error="querying NVML failed: the process was ended by SIGABRT")


def test_a_crash_after_the_answer_keeps_the_answer() -> None:
    program = 'import os; print(\'{"driver_version": "1", "gpus": ["T4"], "code": 0, "error": ""}\', flush=True); '
    assert query_nvml(worker(program + "os.abort()")) == NvmlAnswer("1", ("T4",), 0)
