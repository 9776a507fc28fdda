"""Observers in the step: when each computes, and how its values come back some steps later."""

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
from model_trainer.training.metrics_log import Logs

__all__ = ["LAG", "LoggedObserver", "Observers", "StepObserver"]

WATCH = "watch"
LAG = 4  # steps; each process looks at the same step at the same time, so that all decide alike


class StepObserver(Protocol):
    """What looks at steps: `compute` in the graph, `receive` some steps later on the host."""

    @property
    def every(self) -> int:
        """It looks at each step whose number is a multiple."""

    @property
    def uses(self) -> tuple[str, ...]:
        """ "gradients" and "updates", as far as it needs them."""

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Scalars by name; the same names at each call."""

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Takes what was computed in a step, in the order of the steps; the device has long gone on."""


class LoggedObserver:
    """A declared observer, whose values go to `logs/`."""

    def __init__(self, observer: Observer, name: str, logs: Logs, steps_per_epoch: int) -> None:
        self.every = observer.every
        self.uses = observer.uses
        self.compute = observer.compute
        self._name = name
        self._logs = logs
        self._steps_per_epoch = steps_per_epoch

    def receive(self, step: int, values: dict[str, float]) -> None:
        """Writes a line of them; what is not finite is left out."""
        finite = {f"{self._name}/{key}": value for key, value in values.items() if math.isfinite(value)}
        self._logs.write("observer", step + 1, {**finite, "epoch": step // self._steps_per_epoch + 1})


class Observers:
    """All observers of a run: the one that decides whether training goes on, and those whose values are logged.

    A step calls `before_update` and `after_update` while its graph is built; the loop calls `add` with what it gave.
    """

    def __init__(self, watch: StepObserver | None = None, logged: Mapping[str, StepObserver] | None = None) -> None:
        watching = {} if watch is None else {WATCH: watch}
        self._observers = {**{f"logged/{name}": each for name, each in (logged or {}).items()}, **watching}
        self._keys: dict[str, tuple[str, ...]] = {}  # of the values of each, known when a graph was built
        self._waiting: deque[tuple[int, dict[str, tf.Tensor]]] = deque()
        self._logged_until = -1  # the last step whose values are logged

    def before_update(self, step: tf.Tensor, variables: Sequence[keras.Variable]) -> tf.Tensor:
        """In the graph: the weights in a row, in steps in which an observer uses updates; empty in the others."""
        return self._when_used("updates", step, _as_one_node(lambda: _joined(variables)))

    def after_update(
        self,
        step: tf.Tensor,
        scalars: Mapping[str, tf.Tensor],
        variables: Sequence[keras.Variable],
        before: tf.Tensor,
        gradients: Callable[[], Sequence[tf.Tensor]],
        loss_scale: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """In the graph: the values of each observer in a row, float32 `(number of values,)`.

        Empty for an observer that does not look at this step. They are on the host, so that reading them some steps
        later does not wait for what the device has been given since.

        Args:
            before: what `before_update` gave.
            gradients: of the whole batch, times `loss_scale`; called where they are used.
        """

        def all_gradients() -> tf.Tensor:
            of_batch = gradients()  # reduced out here: a node of its own cannot take part in a reduction
            return _as_one_node(lambda: _joined(of_batch) / loss_scale)()

        rows: dict[str, tf.Tensor] = {}
        gradient_row = self._when_used("gradients", step, all_gradients)
        for name, observer in self._observers.items():

            def row(name: str = name, observer: StepObserver = observer) -> tf.Tensor:
                old = _parts(before, variables) if "updates" in observer.uses else None
                own_gradients = _parts(gradient_row, variables) if "gradients" in observer.uses else None
                values = observer.compute(ObservedStep(step, scalars, variables, own_gradients, old))
                _check_scalars(name, values)
                self._keys[name] = tuple(values)
                return _joined(list(values.values()))

            rows[name] = row() if observer.every == 1 else tf.cond(_is_due(observer, step), _as_one_node(row), _nothing)
        with tf.device("CPU:0"):
            return {name: tf.identity(each) for name, each in rows.items()}

    def _when_used(self, what: str, step: tf.Tensor, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        due = [_is_due(each, step) for each in self._observers.values() if what in each.uses]
        return tf.cond(tf.reduce_any(tf.stack(due)), make, _nothing) if due else _nothing()

    def add(self, step: int, observed: dict[str, tf.Tensor]) -> None:
        """Takes what a step gave, and hands on what one some steps ago did."""
        self._waiting.append((step, observed))
        while len(self._waiting) > LAG:
            self._hand_on()

    def catch_up(self) -> None:
        """Hands on all that is still waiting; waits for the device."""
        while self._waiting:
            self._hand_on()

    def waiting_for_watch(self) -> Iterator[tuple[int, dict[str, float]]]:
        """What the watch will get next; waits for the device."""
        for step, observed in self._waiting:
            yield step, self._values(WATCH, observed)

    def log_all(self) -> None:
        """Logs what is waiting, of which a checkpoint or the end of a run knows nothing; waits for the device.

        What decides is not asked: all processes do that in the same step.
        """
        for step, observed in self._waiting:
            self._log(step, observed)

    def forget(self) -> None:
        """Drops what is waiting; the run goes back."""
        self._waiting.clear()
        self._logged_until = -1

    def _hand_on(self) -> None:
        step, observed = self._waiting.popleft()
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
            problem = f"({name.removeprefix('logged/')}) gives {key!r} of shape {shape}, not a scalar."
            raise ConfigError(problem, "observers")


def _is_due(observer: StepObserver, step: tf.Tensor) -> tf.Tensor:
    return tf.equal(step % observer.every, 0)


def _as_one_node(compute: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    """The same as a function that TensorFlow does not inline: a step that does not call it passes one node, not all."""
    return tf.function(compute, autograph=False, experimental_attributes={"_noinline": True})


def _joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([_nothing(), *(tf.reshape(tf.cast(each, tf.float32), [-1]) for each in tensors)], 0)


def _parts(row: tf.Tensor, like: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """What `_joined` has joined."""
    sizes = [math.prod(each.shape) for each in like]
    parts = tf.split(tf.ensure_shape(row, [sum(sizes)]), sizes)
    return [tf.reshape(part, each.shape) for part, each in zip(parts, like, strict=True)]


def _nothing() -> tf.Tensor:
    return tf.zeros([0])


def named(observers: Sequence[Observer], make: Callable[[Observer, str], Any]) -> dict[str, Any]:
    """`make(observer, name)` of each by its name; the second one of a name has the number 2."""
    counts: Counter[str] = Counter()
    made: dict[str, Any] = {}
    for observer in observers:
        counts[observer.name] += 1
        number = counts[observer.name]
        name = f"{observer.name}_{number}" if number > 1 else observer.name
        if name in made:
            raise ConfigError(f"has two observers that are called {name!r} in logs.", "observers")
        made[name] = make(observer, name)
    return made
