"""The arithmetic checks, on logical devices of the CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.diagnosis.gpu import compute
from model_trainer.diagnosis.gpu.all_reduce import check_all_reduce
from model_trainer.diagnosis.gpu.compute import CONVOLUTION, MATRIX_PRODUCT, OPERATIONS, check_device, largest_error

SMALL = replace(MATRIX_PRODUCT, compare=((64, 64), (64, 64)), measure=((64, 64), (64, 64)))


def test_the_cpu_passes_its_own_check_in_every_precision() -> None:
    checks = check_device("CPU:0", timed=False)
    assert [check.status for check in checks] == ["right"] * 6
    assert {(check.operation, check.precision) for check in checks} == {
        (operation.name, precision) for operation in OPERATIONS for precision in ("float32", "bfloat16", "float16")
    }


def test_the_reported_error_agrees_with_numpy() -> None:
    left, right = (compute._random(shape, offset) for offset, shape in enumerate(SMALL.compare))
    exact = left.astype(np.float64) @ right.astype(np.float64)
    half = np.asarray(tf.cast(tf.linalg.matmul(tf.cast(left, "bfloat16"), tf.cast(right, "bfloat16")), "float32"))
    check = next(
        check for check in check_device("CPU:0", operations=[SMALL], timed=False) if check.precision == "bfloat16"
    )
    assert check.error == pytest.approx(np.max(np.abs(half - exact)) / np.sqrt(np.mean(exact**2)), rel=1e-3)


def test_the_speed_is_in_floating_point_operations_per_second() -> None:
    checks = check_device("CPU:0", operations=[SMALL])
    assert all(check.teraflops is not None and 0 < check.teraflops < 100 for check in checks)
    assert SMALL.flop == 2 * 64**3
    assert CONVOLUTION.flop == 2 * (64 * 56 * 56 * 256) * (3 * 3 * 256)  # outputs times products for each


def wrong_on_second_call(change: Any) -> Any:
    """A matrix product whose second result, that of the checked device, is changed."""
    calls = []

    def product(left: Any, right: Any) -> Any:
        calls.append(1)
        result = tf.linalg.matmul(left, right)
        return result if len(calls) % 2 else change(result)

    return product


@pytest.mark.parametrize(
    "change",
    [
        lambda result: tf.tensor_scatter_nd_add(result, [[3, 5]], tf.ones([1], result.dtype) * 8),
        lambda result: tf.tensor_scatter_nd_update(result, [[3, 5]], tf.constant([math.nan], result.dtype)),
        lambda result: result * tf.cast(1.1, result.dtype),
        lambda result: result[:, :-1],
    ],
    ids=["one number", "one NaN", "all by a tenth", "one column short"],
)
def test_a_wrong_result_is_detected_in_every_precision(change: Any) -> None:
    operation = replace(SMALL, function=wrong_on_second_call(change))
    checks = check_device("CPU:0", operations=[operation])
    assert [check.status for check in checks] == ["wrong"] * 3
    assert all(check.teraflops is None for check in checks)


def test_rounding_to_tf32_is_allowed_only_where_the_device_uses_it() -> None:
    def rounded(value: Any) -> Any:  # 10 bits of mantissa, as float16 has, is TF32's
        return tf.cast(tf.cast(value, "float16"), "float32")

    def product(left: Any, right: Any) -> Any:
        return tf.linalg.matmul(rounded(left), rounded(right)) if len(calls) % 2 else tf.linalg.matmul(left, right)

    calls: list[int] = []

    def alternating(left: Any, right: Any) -> Any:
        result = product(left, right)
        calls.append(1)
        return result

    operation = replace(SMALL, function=alternating)
    for tf32, label, status in ((False, "float32", "wrong"), (True, "float32 (TF32)", "right")):
        calls.clear()
        check = check_device("CPU:0", tf32=tf32, operations=[operation], timed=False)[0]
        assert (check.precision, check.status) == (label, status)


def test_an_exception_fails_only_its_own_check() -> None:
    def fails(left: Any, right: Any) -> Any:
        if left.dtype == tf.bfloat16:
            raise tf.errors.UnimplementedError(None, None, "Graph execution error:\n\nno bfloat16 here\nmore")
        return tf.linalg.matmul(left, right)

    checks = check_device("CPU:0", operations=[replace(SMALL, function=fails)], timed=False)
    assert [check.status for check in checks] == ["right", "failed", "right"]
    assert checks[1].note == "UnimplementedError: no bfloat16 here"


def test_a_result_from_another_device_does_not_count() -> None:
    checks = check_device("GPU:99", operations=[SMALL], timed=False)
    assert {check.status for check in checks} == {"failed"}


def test_too_little_memory_for_timing_leaves_the_result_right() -> None:
    def short(left: Any, right: Any) -> Any:
        if left.shape[0] > 64:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return tf.linalg.matmul(left, right)

    operation = replace(SMALL, function=short, measure=((128, 128), (128, 128)))
    check = check_device("CPU:0", operations=[operation])[0]
    assert (check.status, check.teraflops) == ("right", None)
    assert "OOM" in check.note


def test_largest_error_is_a_fraction_of_the_root_mean_square() -> None:
    expected = np.array([3.0, -3.0, 3.0, -3.0], np.float32)
    assert largest_error(expected + np.array([0, 0, 0.3, 0], np.float32), expected) == pytest.approx(0.1)


def test_all_reduce_over_one_device_is_right() -> None:
    result = check_all_reduce(["CPU:0"], elements=1000)
    assert (result.status, result.note, result.size_bytes) == ("right", "", 4000)


def test_all_reduce_over_all_devices_is_right() -> None:
    devices = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices("CPU")]
    result = check_all_reduce(devices, elements=5000)
    assert (result.status, result.note) == ("right", "")
    assert result.seconds is not None


def test_a_wrong_all_reduce_sum_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", lambda self, op, value: value + 1)
    result = check_all_reduce(["CPU:0"], elements=1000)
    assert result.status == "wrong"
    assert "CPU:0" in result.note
