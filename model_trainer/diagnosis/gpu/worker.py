"""The worker of the GPU check: uses TensorFlow in a process of its own (`python -m ...gpu.worker`).

CUDA ends its process after some errors, and it logs to standard output; neither affects the parent of a worker.
It prints one JSON object per line: about TensorFlow, each device before and after its checks, and the all-reduce.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from model_trainer.cuda_libraries import preload_cuda
from model_trainer.diagnosis.gpu.facts import TensorFlow

__all__ = ["ALL_REDUCE", "work"]

ALL_REDUCE = "all-reduce"

Emit = Callable[[Mapping[str, Any]], None]


def work(
    done: Mapping[str, bool], emit: Emit, *, kind: str = "GPU", timed: bool = True, elements: int = 16 * 2**20
) -> None:
    """Checks every device that is not done yet, then the all-reduce over the correct ones.

    Args:
        done: the devices that an earlier process has checked, and whether each computes correctly.
        emit: called with each result, as JSON types.
        kind: `GPU`; tests use `CPU`, which every machine has.
        timed: whether to measure speeds.
        elements: size of the tensor for the all-reduce; 16 Mi are the gradients of a medium-sized network.
    """
    preload_cuda()
    try:
        import tensorflow as tf
    except Exception as problem:  # noqa: BLE001 - a broken installation raises any error
        emit({"tensorflow": asdict(TensorFlow(import_error=f"{type(problem).__name__}: {problem}"))})
        return
    # Imported after TensorFlow, which they need, and whose failure is reported above.
    from model_trainer.diagnosis.gpu.all_reduce import check_all_reduce
    from model_trainer.diagnosis.gpu.compute import check_device

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # leaves the rest to other processes
    physical = {_short(device.name): device for device in tf.config.list_physical_devices(kind)}
    names = [_short(device.name) for device in tf.config.list_logical_devices(kind)]
    emit({"tensorflow": asdict(_describe_tensorflow(tf, tuple(names)))})

    right = [name for name in names if done.get(name)]
    for name in names:
        if name in done:
            continue
        emit({"checking": name})
        details = tf.config.experimental.get_device_details(physical[name]) if name in physical else {}
        capability = details.get("compute_capability")
        checks = check_device(name, tf32=capability is not None and _uses_tf32(tf, capability), timed=timed)
        emit(
            {
                "device": {
                    "device": name,
                    "name": details.get("device_name", ""),
                    "compute_capability": capability,
                    "checks": [asdict(check) for check in checks],
                }
            }
        )
        if all(check.status == "right" for check in checks if check.precision.startswith("float32")):
            right.append(name)
    if right:
        emit({"checking": ALL_REDUCE})
        emit({"all_reduce": asdict(check_all_reduce(right, elements=elements))})


def _describe_tensorflow(tf: Any, devices: tuple[str, ...]) -> TensorFlow:
    build = tf.sysconfig.get_build_info()
    return TensorFlow(
        with_cuda=bool(tf.test.is_built_with_cuda()),
        built_cuda=str(build.get("cuda_version", "")),
        built_cudnn=str(build.get("cudnn_version", "")),
        built_capabilities=tuple(build.get("cuda_compute_capabilities", ())),
        gpus=devices,
    )


def _uses_tf32(tf: Any, capability: tuple[int, int]) -> bool:
    """Whether the GPU is Ampere (8.0) or later, and TF32 is not turned off."""
    return capability >= (8, 0) and bool(tf.config.experimental.tensor_float_32_execution_enabled())


def _short(name: str) -> str:
    """`GPU:0` for `/physical_device:GPU:0` or `/device:GPU:0`."""
    return name.rpartition("device:")[2]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process at once; its parent prints the message
    # Whatever TensorFlow's C++ side writes to standard output goes to standard error instead.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work(json.loads(sys.argv[1])["done"], lambda answer: print(json.dumps(answer), file=answers, flush=True))


if __name__ == "__main__":
    main()
