"""Computes on a device and compares with the CPU: is it right, and how fast is it.

Sizes are chosen so that one GPU takes seconds: small ones to compare, since the CPU must follow, large ones to time,
since a small product leaves a GPU idle.
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
    "in_words",
    "largest_error",
]

PRECISIONS = ("float32", "bfloat16", "float16")

# The largest difference that rounding explains, as a share of the root mean square of the result.
# A value rounded to p bits is wrong by up to 2**-p of itself, here 2**-8 for bfloat16 and 2**-11 for float16 and TF32,
# the format that Ampere and later GPUs use for float32 products. Inputs are rounded, and the largest of a million
# results is about 5 times their root mean square and rounded once more; 16 times 2**-p holds all of it, and a
# result computed from one wrong input does not fit in.
# Float32's own 2**-24 grows with the number of terms and with the transforms of fast convolutions to about 1e-5,
# which is still far below what TF32 would show.
_TOLERANCE = {"float32": 2e-4, "float32 (TF32)": 16 * 2**-11, "bfloat16": 16 * 2**-8, "float16": 16 * 2**-11}

_SEED = 20240229

# TensorFlow opens the text of an error inside a graph with these.
_EMPTY_PHRASES = ("Graph execution error", "Detected at node", "in user code", "File ", "return ", "^")


@dataclass(frozen=True)
class Operation:
    """A product of two random tensors.

    Attributes:
        function: takes both tensors.
        compare: the two shapes for comparing with the CPU.
        measure: the two shapes for timing. The first one's last axis is summed over.
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
    """Checks every operation in every precision; an exception becomes a failed check, and the others go on.

    Args:
        device: such as `GPU:0`.
        tf32: whether the device computes float32 products in TF32, which is less exact.
        operations: what to compute.
        timed: whether to measure the speed of what is right.
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
    except Exception as problem:  # noqa: BLE001 - whatever a driver comes up with is a finding, not the end of the check
        return Check(operation.name, label, "failed", note=in_words(problem))
    error = largest_error(got, expected)
    tolerance = _TOLERANCE[label]
    if not error <= tolerance:
        return Check(operation.name, label, "wrong", error, tolerance)
    if not timed:
        return Check(operation.name, label, "right", error, tolerance)
    try:
        teraflops = _measure(device, operation, precision)
    except Exception as problem:  # noqa: BLE001 - most likely too little free memory for the large size
        return Check(operation.name, label, "right", error, tolerance, note=f"not timed: {in_words(problem)}")
    return Check(operation.name, label, "right", error, tolerance, teraflops)


def largest_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the expected values' root mean square; infinite for NaN and infinity.

    The largest and not the mean, so that one wrong number among a million shows.
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
    if not result.device.endswith(device):  # TensorFlow moves an operation silently to where it can run
        raise RuntimeError(f"TensorFlow ran it on {result.device.rpartition('device:')[2]} instead")
    return np.asarray(tf.cast(result, "float32"))


def _measure(device: str, operation: Operation, precision: str) -> float:
    """TFLOP/s, by the median of 5 repetitions of about 50 ms each."""
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

        seconds(1)  # the first one loads kernels and tries the algorithms
        launches = max(1, round(0.05 / seconds(1)))
        middle = statistics.median(seconds(launches) for _ in range(5))
    return operation.flop * launches / middle / 1e12


def in_words(problem: Exception) -> str:
    """The error's type and the line of its text that says something, at most 200 characters of it."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_EMPTY_PHRASES)] or [""]
    return f"{type(problem).__name__}: {telling[0][:200]}"
