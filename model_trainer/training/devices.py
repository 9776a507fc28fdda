"""Which devices train, as a `tf.distribute.Strategy`."""

from __future__ import annotations

import os
import shutil

import tensorflow as tf
from absl import logging

from model_trainer.errors import ConfigError, DeviceError
from model_trainer.training.options import Hardware

__all__ = ["describe_devices", "make_strategy"]


def make_strategy(hardware: Hardware) -> tf.distribute.Strategy:
    """The strategy for the declared devices; TensorFlow's default one for a single device.

    Raises:
        ConfigError: more devices were asked for than there are.
        DeviceError: TensorFlow already runs with another division of its devices.
    """
    gpus = [] if hardware.platform == "cpu" else tf.config.list_physical_devices("GPU")
    if hardware.platform == "gpu" and not gpus:
        raise ConfigError(
            'is "gpu", but TensorFlow sees no GPU. script/GPUtest.py tells why, and the cure.', "hardware.platform"
        )
    wanted = hardware.devices
    if wanted != "auto" and wanted < 1:
        raise ConfigError(f'should be "auto" or at least 1, got {wanted}.', "hardware.devices")
    if gpus:
        return _gpus(gpus, wanted)
    _tell_of_idle_gpu(hardware)
    if wanted == "auto" or wanted == 1:
        _leave_gpus_alone(hardware)
        return tf.distribute.get_strategy()
    if hardware.platform != "cpu":
        raise ConfigError(
            f"is {wanted}, but there is one device, the CPU. To divide the CPU into logical devices, "
            "add --set hardware.platform=cpu.",
            "hardware.devices",
        )
    _leave_gpus_alone(hardware)
    _divide_cpu(wanted)
    # The default, collective ops, is for real devices: between logical ones it fails with more than one strategy.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(wanted)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Such as "2 GPUs (NVIDIA H200)" or "the CPU"."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    count = strategy.num_replicas_in_sync
    if kind == "CPU":
        return "the CPU" if count == 1 else f"{count} logical devices of the CPU"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"{count} GPU{'s' * (count > 1)} ({details.get('device_name', 'unknown')})"


def _gpus(gpus: list[tf.config.PhysicalDevice], wanted: int | str) -> tf.distribute.Strategy:
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)  # others may be using the same GPU
        except RuntimeError:
            logging.debug("TensorFlow was started before; its way of taking GPU memory stays.")
    logical = tf.config.list_logical_devices("GPU")
    count = len(logical) if wanted == "auto" else int(wanted)
    if count > len(logical):
        raise ConfigError(f"is {count}, but there are {len(logical)} GPUs.", "hardware.devices")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in logical[:count]])


def _divide_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow is running; what it has may be enough
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise DeviceError(
                f"The CPU was divided into {there} devices when TensorFlow started, and cannot be divided into "
                f"{count} now. Start a new process."
            ) from None


def _leave_gpus_alone(hardware: Hardware) -> None:
    if hardware.platform != "cpu":
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        if tf.config.list_logical_devices("GPU"):
            raise DeviceError(
                '`hardware.platform` is "cpu", but TensorFlow has taken the GPU in this process already. '
                "Start a new process."
            ) from None


def _tell_of_idle_gpu(hardware: Hardware) -> None:
    has_driver = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None
    if has_driver and hardware.platform == "auto":
        logging.warning(
            "TRAINING ON THE CPU: this machine has an NVIDIA driver, but TensorFlow sees no GPU. "
            "script/GPUtest.py tells why, and the cure."
        )
