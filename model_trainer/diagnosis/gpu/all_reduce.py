"""Checks the all-reduce over devices with which training on several GPUs sums gradients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from model_trainer.diagnosis.gpu.compute import describe_error
from model_trainer.diagnosis.gpu.facts import AllReduce

__all__ = ["check_all_reduce"]


def check_all_reduce(devices: Sequence[str], *, elements: int) -> AllReduce:
    """Sums a different tensor of each device over all devices, and checks the sum that each device receives.

    Args:
        devices: such as `("GPU:0", "GPU:1")`; one is enough.
        elements: the size of the float32 tensor on each device.
    """
    try:
        return _check(tuple(devices), elements)
    except Exception as problem:  # noqa: BLE001 - a broken connection between GPUs is a finding, not the end of the check
        return AllReduce(tuple(devices), "failed", note=describe_error(problem))


def _check(devices: tuple[str, ...], elements: int) -> AllReduce:
    # Small whole numbers: float32 holds their sum exactly, in whatever order the devices add.
    base = np.arange(elements, dtype=np.int64) % 1000
    expected = base * (len(devices) * (len(devices) + 1) // 2)
    strategy = tf.distribute.MirroredStrategy(list(devices))
    per_device = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(base * (context.replica_id_in_sync_group + 1), tf.float32)
    )

    def sum_over_devices(value):  # type: ignore[no-untyped-def]
        # Over one device MirroredStrategy raises for a tensor without a device, such as an argument: identity sets it.
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(value))

    @tf.function
    def summed(values):  # type: ignore[no-untyped-def]
        return strategy.run(sum_over_devices, (values,))

    results = strategy.experimental_local_results(summed(per_device))
    wrong = [device for device, result in zip(devices, results, strict=True) if not np.array_equal(result, expected)]
    size = 4 * elements
    if wrong:
        return AllReduce(devices, "wrong", size, note=f"the sum is wrong on {', '.join(wrong)}")

    def seconds() -> float:
        start = time.perf_counter()
        summed(per_device)
        tf.test.experimental.sync_devices()
        return time.perf_counter() - start

    return AllReduce(devices, "right", size, statistics.median(seconds() for _ in range(5)))
