"""Which devices train, as a `tf.distribute.Strategy`."""

from __future__ import annotations

import functools
import shutil

import tensorflow as tf
from absl import logging

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.rendezvous import assemble
from model_trainer.errors import ConfigError, DeviceError, HostError
from model_trainer.run.hardware import Hardware
from model_trainer.storage import files

__all__ = ["describe_devices", "make_strategy"]

HEARTBEAT_SECONDS = 20  # after which a machine that says nothing counts as lost; a closed connection counts at once
ARRIVAL_SECONDS = 600  # that machines have to find each other


def make_strategy(hardware: Hardware, hosts: Hosts | None = None) -> tf.distribute.Strategy:
    """The strategy for the declared devices; TensorFlow's default one for a single device.

    Args:
        hosts: all processes of the run, which have to call this together; None for one.

    Raises:
        ConfigError: more devices were asked for than there are.
        DeviceError: TensorFlow already runs with another division of its devices.
        HostError: the other machines did not come.
    """
    if hosts is not None:
        return _several_machines(hardware, hosts)
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
    _warn_of_idle_gpu(hardware)
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


def _several_machines(hardware: Hardware, hosts: Hosts) -> tf.distribute.Strategy:
    if hardware.platform == "cpu":
        _leave_gpus_alone(hardware)
    gpus = tf.config.list_physical_devices("GPU") if hardware.platform != "cpu" else []
    if hardware.devices != "auto" and hardware.devices != max(1, len(gpus)):
        raise ConfigError(
            f"is {hardware.devices}, but on several machines all {max(1, len(gpus))} devices of each train. To hide "
            "some, set CUDA_VISIBLE_DEVICES.",
            "hardware.devices",
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    logging.info("%s", hosts.describe())
    return _connected(hosts)


@functools.cache
def _connected(hosts: Hosts) -> tf.distribute.Strategy:
    """TensorFlow joins a cluster once in the life of a process, before it does anything else."""
    # TensorFlow waits in silence, deaf to signals, and each process for another time: all meet before it begins.
    assemble(hosts, ARRIVAL_SECONDS)
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context  # no public way leads to the time limits

    try:
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader="/job:worker/replica:0/task:0",
            coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=len(hosts))],
            heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
            cluster_register_timeout_in_ms=ARRIVAL_SECONDS * 1000,
            shutdown_barrier_timeout_in_ms=10_000,
        )
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(hosts.addresses)}),
            task_type="worker",
            task_id=hosts.index,
            rpc_layer="grpc",
        )
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise HostError(
            f"{hosts.describe()}: the machines did not find each other within {ARRIVAL_SECONDS // 60} minutes. Does "
            f"the same command run on each, and can they reach {', '.join(hosts.addresses)}? ({error.message[:200]})"
        ) from error
    except RuntimeError as error:
        raise DeviceError(f"This process cannot join other machines any more: {error}. Start a new one.") from error


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Such as "2 GPUs (NVIDIA H200)" or "the CPU"."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    count = strategy.num_replicas_in_sync
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return f"{count} {kind}s of {strategy.cluster_resolver.cluster_spec().num_tasks('worker')} processes"
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


def _warn_of_idle_gpu(hardware: Hardware) -> None:
    has_driver = files.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None
    if has_driver and hardware.platform == "auto":
        logging.warning(
            "TRAINING ON THE CPU: this machine has an NVIDIA driver, but TensorFlow sees no GPU. "
            "script/GPUtest.py tells why, and the cure."
        )
