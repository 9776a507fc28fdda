"""The inference engine OpenVINO, for CPUs.

Source: https://docs.openvino.ai/2026/openvino-workflow/running-inference.html
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.cpu_cores import num_usable_cores
from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.inference.keras_graph import compute_function
from model_trainer.model_files.trained_model import Engine, TrainedModel

__all__ = ["ConcurrentOpenVINO", "OpenVINO", "has_openvino"]

_TELEMETRY = "openvino_telemetry"
_LOCK = threading.Lock()  # several threads may make engines; the stub and the logger's state are global
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


class OpenVINO:
    """Computes a trained model with OpenVINO. The weights are copied: later changes to the model change nothing.

    Args:
        trained: the model.
        precision: "float32", "bfloat16" or "float16". It is always set: by default OpenVINO computes in bfloat16 on a
            CPU that has it, which changes predictions.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ConfigError: the CPU does not have the precision.
        Exception: OpenVINO cannot convert the network; its message is long.
    """

    name = "openvino"

    def __init__(self, trained: TrainedModel, precision: str = "float32") -> None:
        if not has_openvino():
            raise MissingExtra("OpenVINO engines", "openvino", "openvino")
        self.precision = precision
        function = compute_function(trained)
        with _without_telemetry() as openvino:
            self._model = openvino.convert_model(function)
        names = [output.name for output in function.outputs]
        for result in self._model.get_results():
            # OpenVINO makes an output of each tensor that a custom gradient, as that of SiLU, keeps for training.
            if not result.output(0).names & {*names}:
                self._model.remove_result(result)
        self._outputs = tf.nest.pack_sequence_as(function.structured_outputs, names)
        self._compiled = _Compiled(self._model, self._outputs, precision, num_streams=1)
        computed = self._compiled.precision
        if computed != _PRECISIONS[precision]:
            raise ConfigError(
                f"{precision} is impossible with OpenVINO on this CPU, which would compute in {computed}.", "precision"
            )

    def __call__(self, images: np.ndarray) -> Any:
        return self._compiled(images)

    def for_concurrent_calls(self, max_batch_size: int) -> ConcurrentOpenVINO | None:
        """Returns the network with an inference stream for each core, so that threads wait less for each other.

        It takes seconds, and memory for another copy of the weights. None if there is only one core.
        """
        num_threads = _num_threads()
        return ConcurrentOpenVINO(self, num_threads, max_batch_size) if num_threads > 1 else None


class ConcurrentOpenVINO:
    """Computes several batches at once with OpenVINO, each on one core; see `OpenVINO.for_concurrent_calls`."""

    name = "openvino"

    def __init__(self, engine: OpenVINO, num_calls: int, max_batch_size: int) -> None:
        self.precision, self.num_calls = engine.precision, num_calls
        # Of a fixed shape: the shapes of all layers are not inferred again in each call.
        single = engine._model.clone()
        single.reshape([1, *single.inputs[0].partial_shape[1:]])
        self.alone: Engine = SingleOpenVINO(_Compiled(single, engine._outputs, engine.precision, 1), engine.precision)
        self._compiled = _Compiled(engine._model, engine._outputs, engine.precision, num_calls)
        self.batch_size = self._best_batch_size(max_batch_size)
        if self.batch_size == 1:
            self._compiled = _Compiled(single, engine._outputs, engine.precision, num_calls)

    def __call__(self, images: np.ndarray) -> Any:
        if self.batch_size > 1 or len(images) == 1:
            return self._compiled(images)
        outputs = [self._compiled(images[index : index + 1]) for index in range(len(images))]
        return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *outputs)

    def _best_batch_size(self, max_batch_size: int) -> int:
        """The smallest of 1, 2, 4, ..., `max_batch_size` whose time per image is within 10 % of the shortest."""
        sizes = sorted({min(2**power, max_batch_size) for power in range(max_batch_size.bit_length() + 1)})
        shape = self._compiled.image_shape
        seconds = {size: self._seconds_per_image(np.zeros((size, *shape), np.uint8)) for size in sizes}
        return min(size for size in sizes if seconds[size] <= 1.1 * min(seconds.values()))

    def _seconds_per_image(self, images: np.ndarray) -> float:
        best = math.inf
        for _ in range(4):  # the first one allocates memory
            start = time.process_time()  # other processes disturb it less than wall-clock time
            self._compiled(images)
            best = min(best, time.process_time() - start)
        return best / len(images)


class SingleOpenVINO:
    """Computes single images with OpenVINO, each on all cores, for the lowest latency."""

    name = "openvino"

    def __init__(self, compiled: _Compiled, precision: str) -> None:
        self._compiled, self.precision = compiled, precision

    def __call__(self, images: np.ndarray) -> Any:
        return self._compiled(images)


class _Compiled:
    """A network compiled for the CPU: maps uint8 images to its outputs, in the structure of `outputs`, their names."""

    def __init__(self, model: Any, outputs: Any, precision: str, num_streams: int) -> None:
        with _without_telemetry() as openvino:
            options = {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
                "NUM_STREAMS": num_streams,
                "INFERENCE_NUM_THREADS": _num_threads(),
            }
            self._compiled = _core(openvino).compile_model(model, "CPU", options)
        self.precision: str = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.image_shape = tuple(size.get_length() for size in model.inputs[0].partial_shape[1:])
        self._outputs = tf.nest.map_structure(self._compiled.output, outputs)
        self._of_thread = threading.local()

    def __call__(self, images: np.ndarray) -> Any:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        # The outputs are copied, because the next call of this thread writes to the same memory.
        results = request.infer([np.ascontiguousarray(images)], share_inputs=True, share_outputs=False)
        return tf.nest.map_structure(lambda output: results[output], self._outputs)


@functools.cache
def _core(openvino: ModuleType) -> Any:
    """OpenVINO's core, which lives as long as the process.

    Its CPU plugin gives the thread that first uses it another stack for signal handlers, and unmaps that stack when the
    last core is freed. If another thread frees it, the first one crashes at its next signal.
    """
    return openvino.Core()


def _num_threads() -> int:
    """As many threads as TensorFlow is set to use, or one for each core."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or num_usable_cores()


@contextlib.contextmanager
def _without_telemetry() -> Iterator[ModuleType]:
    """Yields OpenVINO with a stub for its telemetry, which reports each import and conversion to Google Analytics."""
    with _LOCK, _stubbed_telemetry() as openvino:
        yield openvino


@contextlib.contextmanager
def _stubbed_telemetry() -> Iterator[ModuleType]:
    present = sys.modules.get(_TELEMETRY)
    logger = logging.getLogger()
    level, filters, handlers = logger.level, logger.filters[:], logger.handlers[:]
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import raises ImportError, for which it has a stub
    try:
        import openvino
        import openvino.tools.ovc.convert_impl

        yield openvino
    finally:
        logger.setLevel(level)  # a conversion changes it, and leaves it so if it fails
        logger.filters, logger.handlers = filters, handlers
        if present is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = present
