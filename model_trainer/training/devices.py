"""The devices that train, as a `tf.distribute.Strategy`."""

from __future__ import annotations

import functools
import shutil

import tensorflow as tf
from absl import logging

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.rendezvous import assemble
from model_trainer.errors import ConfigError, DeviceError, HostError
from model_trainer.run.hardware import Hardware
from model_trainer.run.run import Run
from model_trainer.storage import files

__all__ = ["describe_devices", "make_strategy", "out_of_memory_message"]

HEARTBEAT_SECONDS = 20  # a machine silent for so long counts as lost; one that closes its connection, at once
ARRIVAL_SECONDS = 600  # time limit for machines to find each other


def make_strategy(hardware: Hardware, hosts: Hosts | None = None) -> tf.distribute.Strategy:
    """Returns the strategy for the declared devices; TensorFlow's default strategy for a single device.

    Args:
        hosts: all processes of the run, which must call this together; None for a single process.

    Raises:
        ConfigError: the declared devices do not exist.
        DeviceError: TensorFlow has already been started with other logical devices.
        HostError: the other machines did not join.
    """
    if hosts is not None:
        return _multi_worker_strategy(hardware, hosts)
    gpus = [] if hardware.platform == "cpu" else tf.config.list_physical_devices("GPU")
    if hardware.platform == "gpu" and not gpus:
        raise ConfigError(
            'is "gpu", but TensorFlow finds no GPU. script/GPUtest.py shows why, and the cure.', "hardware.platform"
        )
    num_devices = hardware.devices
    if num_devices != "auto" and num_devices < 1:
        raise ConfigError(f'should be "auto" or at least 1, got {num_devices}.', "hardware.devices")
    if gpus:
        return _gpu_strategy(gpus, num_devices)
    _warn_of_unused_gpu(hardware)
    if num_devices == "auto" or num_devices == 1:
        _hide_gpus(hardware)
        return tf.distribute.get_strategy()
    if hardware.platform != "cpu":
        raise ConfigError(
            f"is {num_devices}, but there is one device, the CPU. To split the CPU into logical devices, "
            "add --set hardware.platform=cpu.",
            "hardware.devices",
        )
    _hide_gpus(hardware)
    _split_cpu(num_devices)
    # The default, collective ops, is for physical devices: between logical ones it fails with a second strategy.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(num_devices)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _multi_worker_strategy(hardware: Hardware, hosts: Hosts) -> tf.distribute.Strategy:
    if hardware.platform == "cpu":
        _hide_gpus(hardware)
    gpus = tf.config.list_physical_devices("GPU") if hardware.platform != "cpu" else []
    if hardware.devices != "auto" and hardware.devices != max(1, len(gpus)):
        raise ConfigError(
            f"is {hardware.devices}, but on several machines all {max(1, len(gpus))} devices of each are used. To hide "
            "some, set CUDA_VISIBLE_DEVICES.",
            "hardware.devices",
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    logging.info("%s", hosts.describe())
    return _join_cluster(hosts)


@functools.cache
def _join_cluster(hosts: Hosts) -> tf.distribute.Strategy:
    """Joins the cluster; a process can do that once, before it uses TensorFlow in any other way."""
    # TensorFlow waits silently, ignores signals, and its time limit differs by process: so they meet before it starts.
    assemble(hosts, ARRIVAL_SECONDS)
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context  # the time limits have no public API

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
            f"{hosts.describe()}: the machines did not find each other within {ARRIVAL_SECONDS // 60} minutes. Is "
            f"the same command running on each, and can they reach {', '.join(hosts.addresses)}? "
            f"({error.message[:200]})"
        ) from error
    except RuntimeError as error:
        raise DeviceError(f"This process can no longer join other machines: {error}. Start a new process.") from error


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Returns a description such as "2 GPUs (NVIDIA H200)" or "the CPU"."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    count = strategy.num_replicas_in_sync
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return f"{count} {kind}s of {strategy.cluster_resolver.cluster_spec().num_tasks('worker')} processes"
    if kind == "CPU":
        return "the CPU" if count == 1 else f"{count} logical devices of the CPU"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"{count} GPU{'s' * (count > 1)} ({details.get('device_name', 'unknown')})"


def out_of_memory_message(run: Run) -> str:
    """Returns the error message, with cures, for a device that has too little memory for a step of the run."""
    batch_size = run.training.batch_size
    height, width, _ = run.spec.target_size
    return (
        f"Out of memory with {batch_size} images of {height} x {width} in a step. "
        f"Lower the batch: --set training.batch_size={max(1, batch_size // 2)}; or the size: "
        f"--set spec.target_size=[{height // 2},{width // 2},{run.spec.target_size[2]}]; "
        "or the precision: --set training.precision=mixed_bfloat16"
    )


def _gpu_strategy(gpus: list[tf.config.PhysicalDevice], num_devices: int | str) -> tf.distribute.Strategy:
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)  # other processes may be using the same GPU
        except RuntimeError:
            logging.debug("TensorFlow was started before; its GPU memory settings cannot be changed.")
    logical = tf.config.list_logical_devices("GPU")
    count = len(logical) if num_devices == "auto" else int(num_devices)
    if count > len(logical):
        raise ConfigError(f"is {count}, but there are {len(logical)} GPUs.", "hardware.devices")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in logical[:count]])


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow has been started; it may have enough logical devices
        existing = len(tf.config.list_logical_devices("CPU"))
        if existing < count:
            raise DeviceError(
                f"The CPU was split into {existing} devices when TensorFlow started, and cannot be split into "
                f"{count} now. Start a new process."
            ) from None


def _hide_gpus(hardware: Hardware) -> None:
    if hardware.platform != "cpu":
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        if tf.config.list_logical_devices("GPU"):
            raise DeviceError(
                '`hardware.platform` is "cpu", but TensorFlow already uses the GPU in this process. '
                "Start a new process."
            ) from None


def _warn_of_unused_gpu(hardware: Hardware) -> None:
    has_driver = files.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None
    if has_driver and hardware.platform == "auto":
        logging.warning(
            "TRAINING ON THE CPU: this machine has an NVIDIA driver, but TensorFlow finds no GPU. "
            "script/GPUtest.py shows why, and the cure."
        )
