"""Each run has steps of its own, which TensorFlow does not take for one function that is traced again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from model_trainer.training.step import graph_per_size


@pytest.fixture
def warnings_of_tracing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    logged: list[str] = []
    monkeypatch.setattr(polymorphic_function.logging, "warning", logged.append)
    return logged


def make_step(compiled: Callable[..., Callable[[tf.Tensor, int], tf.Tensor]], number: int) -> Callable[..., tf.Tensor]:
    def some_step(values: tf.Tensor, size: int) -> tf.Tensor:
        return tf.reduce_sum(values) / size + number

    return compiled(some_step)


def test_steps_of_many_runs_are_no_retracing(warnings_of_tracing: list[str]) -> None:
    for number in range(12):
        step = make_step(graph_per_size, number)
        assert [step(tf.ones(size), size).numpy() for size in (4, 3, 4)] == [1 + number] * 3
    assert not warnings_of_tracing


def test_a_step_that_is_traced_again_and_again_still_warns(warnings_of_tracing: list[str]) -> None:
    step = make_step(graph_per_size, 0)
    for size in range(1, 12):
        step(tf.ones(size), size)
    assert warnings_of_tracing


def test_the_graph_of_a_step_has_its_name() -> None:
    step = graph_per_size(make_step(lambda function: function, 0))
    assert b"some_step" in step.get_concrete_function(tf.ones(2), 2).name
