"""The GPU check: inspects the machine, runs TensorFlow in another process, and diagnoses the result."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from model_trainer.diagnosis.gpu.facts import AllReduce, Check, Device, Facts, GpuReport, TensorFlow
from model_trainer.diagnosis.gpu.libraries import probe_libraries
from model_trainer.diagnosis.gpu.machine import probe_machine, probe_versions, read_driver_version
from model_trainer.diagnosis.gpu.nvml import query_nvml
from model_trainer.diagnosis.gpu.process import run_answering
from model_trainer.diagnosis.gpu.reason import diagnose
from model_trainer.diagnosis.gpu.worker import ALL_REDUCE

__all__ = ["Computed", "check_gpus", "compute", "read_log"]

_WORKER = (sys.executable, "-P", "-m", "model_trainer.diagnosis.gpu.worker")

# For a GPU newer than TensorFlow the driver compiles the kernels in the first run, which takes minutes.
_SILENCE_SECONDS = 300.0


@dataclass
class Computed:
    """The results of the worker processes so far."""

    tensorflow: TensorFlow = field(default_factory=TensorFlow)
    devices: list[Device] = field(default_factory=list)
    all_reduce: AllReduce | None = None


def check_gpus(on_progress: Callable[[str], None] = lambda _: None) -> GpuReport:
    """Checks the machine, the driver, the CUDA libraries, and the arithmetic of every GPU.

    Args:
        on_progress: called with a short description before each longer step.
    """
    on_progress("Reading the machine")
    libraries, driver = probe_libraries()
    nvml = query_nvml()
    driver = replace(
        driver,
        version=read_driver_version() or nvml.driver_version,
        nvml_code=nvml.code,
        smi_gpus=nvml.gpus,
        smi_error=nvml.error,
    )
    on_progress("Starting TensorFlow")
    computed = compute(on_progress=on_progress)
    facts = Facts(probe_versions(), probe_machine(), driver, libraries, computed.tensorflow)
    devices = tuple(_with_memory(device, facts) for device in computed.devices)
    return GpuReport(facts, devices, computed.all_reduce, diagnose(facts, devices))


def compute(
    worker: Sequence[str] = _WORKER,
    *,
    silence_seconds: float = _SILENCE_SECONDS,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Computed:
    """Checks every device in a worker process; if a device crashes it, another worker checks the remaining devices.

    Args:
        worker: the command; the devices that are done are appended as its last argument.
        silence_seconds: a worker that prints nothing for this long is killed.
        on_progress: called with a short description before each device.
    """
    computed = Computed()
    while True:
        started: list[str] = []

        def handle_answer(answer: Mapping[str, Any], started: list[str] = started) -> None:
            if "checking" in answer:
                started.append(answer["checking"])
                on_progress(f"Checking {answer['checking']}")
            elif "device" in answer:
                computed.devices.append(_device(answer["device"]))
            elif "all_reduce" in answer:
                result = answer["all_reduce"]
                computed.all_reduce = AllReduce(**result | {"devices": tuple(result["devices"])})
            else:
                computed.tensorflow = _tensorflow(answer["tensorflow"])

        done = {device.device: device.right for device in computed.devices}
        failure, log = run_answering(
            [*worker, json.dumps({"done": done})],
            handle_answer,
            environment=_environment(),
            silence_seconds=silence_seconds,
        )
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # the user wants to see the full log
            print(log, file=sys.stderr, end="")
        refused, tail = read_log(log)
        computed.tensorflow = replace(computed.tensorflow, refused=refused, log=tail)
        if not failure or computed.all_reduce:
            return computed
        failure = " ".join(filter(None, [f"{failure}.", tail.rpartition("\n")[2]]))
        if not started:
            if not computed.devices:
                computed.tensorflow = replace(computed.tensorflow, import_error=failure)
            return computed
        if started[-1] == ALL_REDUCE:
            right = tuple(device.device for device in computed.devices if device.right)
            computed.all_reduce = AllReduce(right, "failed", note=failure)
            return computed
        if started[-1] not in {device.device for device in computed.devices}:
            computed.devices.append(Device(started[-1], failure=failure))


def read_log(text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Extracts what TensorFlow's C++ log reports about GPUs.

    Returns:
        The libraries that it could not load, with the loader's messages; and the last five warnings and errors, without
        time and file.
    """
    refused = re.findall(r"Could not load dynamic library '([^']+)'; dlerror: ([^;\n]*)", text)
    # Lines begin with a letter for the severity: I, W, E or F.
    errors = re.findall(r"^[WEF]\d{4} \S+\s+\d+ \S+\] (.*)$", text, re.MULTILINE)
    return tuple(dict(refused).items()), "\n".join(errors[-5:])


def _environment() -> dict[str, str]:
    # At this level the loader of CUDA's libraries logs which of them it could not open; read_log() needs it.
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}


def _tensorflow(answer: Mapping[str, Any]) -> TensorFlow:
    return TensorFlow(
        **{
            **answer,
            "built_capabilities": tuple(answer["built_capabilities"]),
            "gpus": tuple(answer["gpus"]),
            "refused": (),
        }
    )


def _device(answer: Mapping[str, Any]) -> Device:
    return Device(
        device=answer["device"],
        name=answer["name"],
        compute_capability=_pair(answer["compute_capability"]),
        checks=tuple(Check(**check) for check in answer["checks"]),
    )


def _pair(numbers: Sequence[int] | None) -> tuple[int, int] | None:
    return (numbers[0], numbers[1]) if numbers else None


def _with_memory(device: Device, facts: Facts) -> Device:
    """Adds what only the driver reports, such as the memory; both list the GPUs in one order if neither skips any."""
    gpus = facts.driver.gpus
    index = int(device.device.rpartition(":")[2])
    if len(gpus) != len(facts.tensorflow.gpus) or index >= len(gpus):
        return device
    gpu = gpus[index]
    return replace(
        device,
        name=device.name or gpu.name,
        memory_bytes=gpu.memory_bytes,
        compute_capability=device.compute_capability or gpu.compute_capability,
    )
