"""The whole GPU check: reads the machine, lets TensorFlow compute in another process, and judges."""

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
from model_trainer.diagnosis.gpu.nvml import ask_nvml
from model_trainer.diagnosis.gpu.process import run_answering
from model_trainer.diagnosis.gpu.reason import diagnose
from model_trainer.diagnosis.gpu.worker import ALL_REDUCE

__all__ = ["Computed", "check_gpus", "compute", "read_log"]

_WORKER = (sys.executable, "-P", "-m", "model_trainer.diagnosis.gpu.worker")

# A GPU newer than TensorFlow has its code translated at the first run, which takes minutes.
_SILENCE_SECONDS = 300.0


@dataclass
class Computed:
    """What the worker processes have answered so far."""

    tensorflow: TensorFlow = field(default_factory=TensorFlow)
    devices: list[Device] = field(default_factory=list)
    all_reduce: AllReduce | None = None


def check_gpus(on_progress: Callable[[str], None] = lambda _: None) -> GpuReport:
    """Checks the machine, the driver, the libraries, and every GPU's arithmetic.

    Args:
        on_progress: called with a few words before each longer step.
    """
    on_progress("Reading the machine")
    libraries, driver = probe_libraries()
    nvml = ask_nvml()
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
    """Runs workers until every device is checked; a device that ends its worker has failed, the next worker goes on.

    Args:
        worker: command; what is done already becomes its last argument.
        silence_seconds: a worker that says nothing for so long is ended.
        on_progress: called with a few words before each device.
    """
    computed = Computed()
    while True:
        started: list[str] = []

        def take(answer: Mapping[str, Any], started: list[str] = started) -> None:
            if "checking" in answer:
                started.append(answer["checking"])
                on_progress(f"Checking {answer['checking']}")
            elif "device" in answer:
                computed.devices.append(_device(answer["device"]))
            elif "all_reduce" in answer:
                said = answer["all_reduce"]
                computed.all_reduce = AllReduce(**said | {"devices": tuple(said["devices"])})
            else:
                computed.tensorflow = _tensorflow(answer["tensorflow"])

        done = {device.device: device.right for device in computed.devices}
        failure, log = run_answering(
            [*worker, json.dumps({"done": done})], take, environment=_environment(), silence_seconds=silence_seconds
        )
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # whoever asks for the most wants to see it
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
    """What TensorFlow's C++ log says about GPUs.

    Returns:
        The libraries that it could not load, with the loader's words; and its last five warnings and errors, cleaned.
    """
    refused = re.findall(r"Could not load dynamic library '([^']+)'; dlerror: ([^;\n]*)", text)
    # Lines begin with a letter for the severity: I, W, E or F.
    grave = re.findall(r"^[WEF]\d{4} \S+\s+\d+ \S+\] (.*)$", text, re.MULTILINE)
    return tuple(dict(refused).items()), "\n".join(grave[-5:])


def _environment() -> dict[str, str]:
    # The level at which the loader of CUDA's libraries says which of them it could not open; read_log() needs it.
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}


def _tensorflow(said: Mapping[str, Any]) -> TensorFlow:
    return TensorFlow(
        **{
            **said,
            "built_capabilities": tuple(said["built_capabilities"]),
            "gpus": tuple(said["gpus"]),
            "refused": (),
        }
    )


def _device(said: Mapping[str, Any]) -> Device:
    return Device(
        device=said["device"],
        name=said["name"],
        compute_capability=_pair(said["compute_capability"]),
        checks=tuple(Check(**check) for check in said["checks"]),
    )


def _pair(numbers: Sequence[int] | None) -> tuple[int, int] | None:
    return (numbers[0], numbers[1]) if numbers else None


def _with_memory(device: Device, facts: Facts) -> Device:
    """Adds what only the driver knows; TensorFlow numbers GPUs in the driver's order unless it leaves one out."""
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
