"""Runs observers in the training step, and reads their values some steps later, without waiting for the device."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from model_trainer.errors import ConfigError
from model_trainer.run.observers import ObservedStep, Observer
from model_trainer.training.metrics_log import MetricsLog

__all__ = ["LAG", "LoggedObserver", "Observers", "StepObserver"]

WATCH = "watch"
LAG = 4  # steps; each process reads the same step at the same time, so that all make the same decision


class StepObserver(Protocol):
    """An observer of training steps: `compute` runs in the graph, `receive` some steps later on the host."""

    @property
    def every(self) -> int:
        """It observes the steps whose number is a multiple of this."""

    @property
    def uses(self) -> tuple[str, ...]:
        """The tensors that `compute` reads: "gradients", "updates", or both."""

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Returns scalars by name, with the same names at each call."""

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Receives the values of a step, in the order of the steps; the device has already computed later steps."""


class LoggedObserver:
    """A declared observer, whose values are written to `logs/`."""

    def __init__(self, observer: Observer, name: str, logs: MetricsLog, steps_per_epoch: int) -> None:
        self.every = observer.every
        self.uses = observer.uses
        self.compute = observer.compute
        self._name = name
        self._logs = logs
        self._steps_per_epoch = steps_per_epoch

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Logs the values that are finite."""
        finite = {f"{self._name}/{key}": value for key, value in values.items() if math.isfinite(value)}
        self._logs.write("observer", step + 1, {**finite, "epoch": step // self._steps_per_epoch + 1})


class Observers:
    """All observers of a run: the divergence detector, and those whose values are logged.

    The training step calls `before_update` and `after_update` while its graph is built; the loop calls `add` with the
    result.
    """

    def __init__(self, watch: StepObserver | None = None, logged: Mapping[str, StepObserver] | None = None) -> None:
        watches = {} if watch is None else {WATCH: watch}
        self._observers = {**{f"logged/{name}": observer for name, observer in (logged or {}).items()}, **watches}
        self._keys: dict[str, tuple[str, ...]] = {}  # names of each observer's values, known when a graph is built
        self._pending: deque[tuple[int, dict[str, tf.Tensor]]] = deque()
        self._logged_until = -1  # the last step whose values are logged

    def before_update(self, step: tf.Tensor, variables: Sequence[keras.Variable]) -> tf.Tensor:
        """Returns, in the graph, the weights as one vector; empty if no observer of this step uses updates."""
        return self._if_used("updates", step, _as_one_node(lambda: _flattened(variables)))

    def after_update(
        self,
        step: tf.Tensor,
        scalars: Mapping[str, tf.Tensor],
        variables: Sequence[keras.Variable],
        before: tf.Tensor,
        gradients: Callable[[], Sequence[tf.Tensor]],
        loss_scale: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Returns, in the graph, the values of each observer as one vector, float32 `(number of values,)`.

        It is empty for an observer that skips this step. The vectors are on the host, so that reading them some steps
        later does not wait for later work of the device.

        Args:
            before: the result of `before_update`.
            gradients: returns the gradients of the whole batch, times `loss_scale`; called only if they are used.
        """

        def all_gradients() -> tf.Tensor:
            batch_gradients = gradients()  # outside the separate function, which cannot contain an all-reduce
            return _as_one_node(lambda: _flattened(batch_gradients) / loss_scale)()

        vectors: dict[str, tf.Tensor] = {}
        gradient_vector = self._if_used("gradients", step, all_gradients)
        for name, observer in self._observers.items():

            def compute(name: str = name, observer: StepObserver = observer) -> tf.Tensor:
                old = _split(before, variables) if "updates" in observer.uses else None
                own_gradients = _split(gradient_vector, variables) if "gradients" in observer.uses else None
                values = observer.compute(ObservedStep(step, scalars, variables, own_gradients, old))
                _check_scalars(name, values)
                self._keys[name] = tuple(values)
                return _flattened(list(values.values()))

            is_always_due = observer.every == 1
            vectors[name] = (
                compute() if is_always_due else tf.cond(_is_due(observer, step), _as_one_node(compute), _empty)
            )
        with tf.device("CPU:0"):
            return {name: tf.identity(vector) for name, vector in vectors.items()}

    def _if_used(self, what: str, step: tf.Tensor, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        due = [_is_due(observer, step) for observer in self._observers.values() if what in observer.uses]
        return tf.cond(tf.reduce_any(tf.stack(due)), make, _empty) if due else _empty()

    def add(self, step: int, observed: dict[str, tf.Tensor]) -> None:
        """Adds the values of a step, and delivers those of `LAG` steps ago."""
        self._pending.append((step, observed))
        while len(self._pending) > LAG:
            self._deliver()

    def catch_up(self) -> None:
        """Delivers all pending values; waits for the device."""
        while self._pending:
            self._deliver()

    def waiting_for_watch(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields the pending values of the divergence detector; waits for the device."""
        for step, observed in self._pending:
            yield step, self._values(WATCH, observed)

    def log_all(self) -> None:
        """Logs pending values before a checkpoint or the end of a run; waits for the device.

        The watch does not receive them, because all processes must do that in the same step.
        """
        for step, observed in self._pending:
            self._log(step, observed)

    def forget(self) -> None:
        """Discards pending values, for a rollback."""
        self._pending.clear()
        self._logged_until = -1

    def _deliver(self) -> None:
        step, observed = self._pending.popleft()
        self._log(step, observed)
        if WATCH in self._observers:
            self._observers[WATCH].receive(step, self._values(WATCH, observed))

    def _log(self, step: int, observed: dict[str, tf.Tensor]) -> None:
        if step <= self._logged_until:
            return
        self._logged_until = step
        for name, observer in self._observers.items():
            if name != WATCH and step % observer.every == 0:
                observer.receive(step, self._values(name, observed))

    def _values(self, name: str, observed: dict[str, tf.Tensor]) -> dict[str, float]:
        return dict(zip(self._keys[name], np.asarray(observed[name]).tolist(), strict=True))


def _check_scalars(name: str, values: Mapping[str, tf.Tensor]) -> None:
    for key, value in values.items():
        shape = tf.convert_to_tensor(value).shape
        if shape.rank != 0:
            problem = f"({name.removeprefix('logged/')}) should compute scalars, but {key!r} has shape {shape}."
            raise ConfigError(problem, "observers")


def _is_due(observer: StepObserver, step: tf.Tensor) -> tf.Tensor:
    return tf.equal(step % observer.every, 0)


def _as_one_node(compute: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    """Wraps `compute` into a function that TensorFlow does not inline: a step that skips it skips a single node."""
    return tf.function(compute, autograph=False, experimental_attributes={"_noinline": True})


def _flattened(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([_empty(), *(tf.reshape(tf.cast(tensor, tf.float32), [-1]) for tensor in tensors)], 0)


def _split(vector: tf.Tensor, variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """Splits the result of `_flattened` into tensors with the shapes of `variables`."""
    sizes = [math.prod(variable.shape) for variable in variables]
    pieces = tf.split(tf.ensure_shape(vector, [sum(sizes)]), sizes)
    return [tf.reshape(piece, variable.shape) for piece, variable in zip(pieces, variables, strict=True)]


def _empty() -> tf.Tensor:
    return tf.zeros([0])


def named(observers: Sequence[Observer], make: Callable[[Observer, str], Any]) -> dict[str, Any]:
    """Returns `make(observer, name)` by name; a second observer with the same name is numbered 2.

    Raises:
        ConfigError: a numbered name is also the name of another observer.
    """
    counts: Counter[str] = Counter()
    by_name: dict[str, Any] = {}
    for observer in observers:
        counts[observer.name] += 1
        number = counts[observer.name]
        name = f"{observer.name}_{number}" if number > 1 else observer.name
        if name in by_name:
            raise ConfigError(f"has two observers with the name {name!r} in logs.", "observers")
        by_name[name] = make(observer, name)
    return by_name
