"""In which numbers the network computes.

`precision="auto"` is a plain rule, from measurements (docs/decisions/0006): a CPU that multiplies bfloat16 trains most
families of the table faster in mixed_bfloat16; a GPU of compute capability 8 and above has bfloat16, one of 7 float16.
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

# Names of the table; NASNetLarge, which nobody has measured, has the layers of NASNetMobile.
_FASTER_IN_FLOAT32 = ("mobilenet_v3_large", "mobilenet_v3_small", "nasnet_large", "nasnet_mobile")


def choose_precision(declared: Precision, spec: ModelSpec, network: AnyNetwork) -> str:
    """float32, mixed_bfloat16 or mixed_float16; only "auto" is decided here.

    auto is, on GPUs, mixed_bfloat16 from compute capability 8.0, mixed_float16 from 7.0, otherwise float32; on a CPU
    with x86's bfloat16 instructions mixed_bfloat16 for backbones of `keras.applications`, but not for MobileNetV3 and
    NASNet. What is not known is float32.
    """
    if declared != "auto":
        return declared
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return _for_gpus()
    known = entry_of_class(spec.class_) if isinstance(network, Network) else None
    is_faster = known is not None and known[0] not in _FASTER_IN_FLOAT32
    return "mixed_bfloat16" if is_faster and _cpu_has_bfloat16() else "float32"


def _for_gpus() -> str:
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    least = min(found.get("compute_capability", (0, 0)) for found in details)
    if least >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if least >= (7, 0) else "float32"


def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        text = files.read_text(cpuinfo)
    except OSError:  # not Linux
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16"))
