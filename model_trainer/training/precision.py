"""Chooses the dtype policy: float32, mixed_bfloat16 or mixed_float16.

`precision="auto"` is a simple rule from measurements (docs/decisions/0006): a CPU with bfloat16 instructions trains
most model families faster in mixed_bfloat16; a GPU of compute capability 8 and above supports bfloat16, one of 7
float16.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from model_trainer.run.network import AnyNetwork, Network
from model_trainer.run.training import Precision
from model_trainer.specs import ModelSpec
from model_trainer.specs.table import entry_of_class
from model_trainer.storage import files

__all__ = ["choose_precision"]

# Names of specs; NASNetLarge, which was not measured, has the layers of NASNetMobile.
_FASTER_IN_FLOAT32 = ("mobilenet_v3_large", "mobilenet_v3_small", "nasnet_large", "nasnet_mobile")


def choose_precision(declared: Precision, spec: ModelSpec, network: AnyNetwork) -> str:
    """Returns "float32", "mixed_bfloat16" or "mixed_float16"; only "auto" is decided here.

    On GPUs "auto" is mixed_bfloat16 from compute capability 8.0, mixed_float16 from 7.0, otherwise float32. On a CPU
    with x86's bfloat16 instructions it is mixed_bfloat16 for backbones of `keras.applications`, except MobileNetV3 and
    NASNet. In all other cases it is float32.
    """
    if declared != "auto":
        return declared
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return _for_gpus()
    entry = entry_of_class(spec.class_) if isinstance(network, Network) else None
    is_faster = entry is not None and entry[0] not in _FASTER_IN_FLOAT32
    return "mixed_bfloat16" if is_faster and _cpu_has_bfloat16() else "float32"


def _for_gpus() -> str:
    all_details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    min_capability = min(details.get("compute_capability", (0, 0)) for details in all_details)
    if min_capability >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if min_capability >= (7, 0) else "float32"


def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        text = files.read_text(cpuinfo)
    except OSError:  # not Linux
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16"))
