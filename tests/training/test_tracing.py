"""Each run traces its own steps, which TensorFlow must not count as retracing of one function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from model_trainer.training.step import traced_per_batch_size


@pytest.fixture
def tracing_warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    logged: list[str] = []
    monkeypatch.setattr(polymorphic_function.logging, "warning", logged.append)
    return logged


def make_step(compiled: Callable[..., Callable[[tf.Tensor, int], tf.Tensor]], number: int) -> Callable[..., tf.Tensor]:
    def some_step(values: tf.Tensor, size: int) -> tf.Tensor:
        return tf.reduce_sum(values) / size + number

    return compiled(some_step)


def test_steps_of_many_runs_give_no_retracing_warning(tracing_warnings: list[str]) -> None:
    for number in range(12):
        step = make_step(traced_per_batch_size, number)
        assert [step(tf.ones(size), size).numpy() for size in (4, 3, 4)] == [1 + number] * 3
    assert not tracing_warnings


def test_a_step_that_is_retraced_again_and_again_still_gives_a_warning(tracing_warnings: list[str]) -> None:
    step = make_step(traced_per_batch_size, 0)
    for size in range(1, 12):
        step(tf.ones(size), size)
    assert tracing_warnings


def test_the_graph_of_a_step_has_the_name_of_its_function() -> None:
    step = traced_per_batch_size(make_step(lambda function: function, 0))
    assert b"some_step" in step.get_concrete_function(tf.ones(2), 2).name
