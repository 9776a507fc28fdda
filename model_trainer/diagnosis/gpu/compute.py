"""Compares computations on a device with the CPU, and measures their speed.

Sizes are chosen so that one GPU takes seconds: small ones to compare, because the CPU computes them too, and large ones
to time, because a small product leaves a GPU idle.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.diagnosis.gpu.facts import Check

__all__ = [
    "CONVOLUTION",
    "MATRIX_PRODUCT",
    "OPERATIONS",
    "PRECISIONS",
    "Operation",
    "check_device",
    "describe_error",
    "largest_error",
]

PRECISIONS = ("float32", "bfloat16", "float16")

# The largest difference that rounding explains, as a fraction of the root mean square of the result.
# A value rounded to p bits has a relative error up to 2**-p, here 2**-8 for bfloat16 and 2**-11 for float16 and TF32,
# the format that Ampere and later GPUs use for float32 products. Inputs are rounded, and the largest of a million
# results is about 5 times their root mean square and rounded once more; 16 times 2**-p covers all of it, but not
# the error of a result that is computed from one wrong input.
# Float32's own 2**-24 grows with the number of terms and with the transforms of fast convolutions to about 1e-5,
# which is still far below the error of TF32.
_TOLERANCE = {"float32": 2e-4, "float32 (TF32)": 16 * 2**-11, "bfloat16": 16 * 2**-8, "float16": 16 * 2**-11}

_SEED = 20240229

# TensorFlow begins the message of an error inside a graph with lines of these.
_UNINFORMATIVE_PREFIXES = ("Graph execution error", "Detected at node", "in user code", "File ", "return ", "^")


@dataclass(frozen=True)
class Operation:
    """A product of two random tensors.

    Attributes:
        function: takes both tensors.
        compare: the shapes of both tensors for comparing with the CPU.
        measure: their shapes for timing; the last axis of the first tensor is summed over.
    """

    name: str
    function: Callable[[Any, Any], Any]
    compare: tuple[tuple[int, ...], tuple[int, ...]]
    measure: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def flop(self) -> int:
        """Floating-point operations of one timed product; a multiplication and an addition count as two."""
        left, right = self.measure
        return 2 * math.prod(left) * math.prod(right) // left[-1]


def _convolution(images: Any, kernel: Any) -> Any:
    return tf.nn.conv2d(images, kernel, strides=1, padding="SAME")


MATRIX_PRODUCT = Operation(
    "matrix product", tf.linalg.matmul, ((1024, 1024), (1024, 1024)), ((8192, 8192), (8192, 8192))
)
CONVOLUTION = Operation(
    "convolution", _convolution, ((4, 28, 28, 64), (3, 3, 64, 64)), ((64, 56, 56, 256), (3, 3, 256, 256))
)
OPERATIONS = (MATRIX_PRODUCT, CONVOLUTION)


def check_device(
    device: str, *, tf32: bool = False, operations: Sequence[Operation] = OPERATIONS, timed: bool = True
) -> tuple[Check, ...]:
    """Checks every operation in every precision; an exception becomes a failed check, and the others continue.

    Args:
        device: such as `GPU:0`.
        tf32: whether the device computes float32 products in TF32, which is less exact.
        operations: what to compute.
        timed: whether to measure the speed of correct operations.
    """
    return tuple(
        _check(device, operation, precision, tf32=tf32, timed=timed)
        for operation in operations
        for precision in PRECISIONS
    )


def _check(device: str, operation: Operation, precision: str, *, tf32: bool, timed: bool) -> Check:
    label = "float32 (TF32)" if tf32 and precision == "float32" else precision
    try:
        left, right = (_random(shape, offset) for offset, shape in enumerate(operation.compare))
        expected = _compute("CPU:0", operation, left, right, "float32")
        got = _compute(device, operation, left, right, precision)
    except Exception as problem:  # noqa: BLE001 - any error of a driver is a finding, not the end of the check
        return Check(operation.name, label, "failed", note=describe_error(problem))
    error = largest_error(got, expected)
    tolerance = _TOLERANCE[label]
    if not error <= tolerance:
        return Check(operation.name, label, "wrong", error, tolerance)
    if not timed:
        return Check(operation.name, label, "right", error, tolerance)
    try:
        teraflops = _measure(device, operation, precision)
    except Exception as problem:  # noqa: BLE001 - most likely too little free memory for the large size
        return Check(operation.name, label, "right", error, tolerance, note=f"not timed: {describe_error(problem)}")
    return Check(operation.name, label, "right", error, tolerance, teraflops)


def largest_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a fraction of the expected values' root mean square; infinite for NaN and infinity.

    The largest and not the mean, so that one wrong number among a million is detected.
    """
    if got.shape != expected.shape or not np.isfinite(got).all():
        return math.inf
    scale = math.sqrt(float(np.mean(np.square(expected, dtype=np.float64))))
    return float(np.max(np.abs(got.astype(np.float64) - expected))) / scale


def _random(shape: tuple[int, ...], offset: int) -> np.ndarray:
    return np.random.default_rng(_SEED + offset).standard_normal(shape, dtype=np.float32)


def _compute(device: str, operation: Operation, left: np.ndarray, right: np.ndarray, precision: str) -> np.ndarray:
    with tf.device(device):
        result = operation.function(tf.cast(left, precision), tf.cast(right, precision))
    if not result.device.endswith(device):  # TensorFlow silently moves an operation to a device that supports it
        raise RuntimeError(f"TensorFlow ran it on {result.device.rpartition('device:')[2]} instead")
    return np.asarray(tf.cast(result, "float32"))


def _measure(device: str, operation: Operation, precision: str) -> float:
    """TFLOP/s, from the median of 5 repetitions of about 50 ms each."""
    with tf.device(device):
        left, right = (
            tf.cast(tf.random.stateless_normal(shape, seed=(_SEED, offset)), precision)
            for offset, shape in enumerate(operation.measure)
        )

        def seconds(launches: int) -> float:
            start = time.perf_counter()
            for _ in range(launches):
                operation.function(left, right)
            tf.test.experimental.sync_devices()  # a GPU is still computing when the call returns
            return time.perf_counter() - start

        seconds(1)  # the first call loads kernels and autotunes
        launches = max(1, round(0.05 / seconds(1)))
        median = statistics.median(seconds(launches) for _ in range(5))
    return operation.flop * launches / median / 1e12


def describe_error(problem: Exception) -> str:
    """The error's type and the first informative line of its message, at most 200 characters of it."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(_UNINFORMATIVE_PREFIXES)] or [""]
    return f"{type(problem).__name__}: {informative[0][:200]}"
