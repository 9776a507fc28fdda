"""OpenVINO computes the network on CPUs.

Source: https://docs.openvino.ai/2026/openvino-workflow/running-inference.html
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any, final

import numpy as np
import tensorflow as tf

from model_trainer.errors import ConfigError, MissingExtra
from model_trainer.inference.keras_graph import compute_function
from model_trainer.model_files.trained_model import TrainedModel

__all__ = ["OpenVINO", "has_openvino"]

_TELEMETRY = "openvino_telemetry"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


@final
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
            model = openvino.convert_model(function)
            names = [output.name for output in function.outputs]
            for result in model.get_results():
                # OpenVINO makes an output of each tensor that a custom gradient, as that of SiLU, keeps for training.
                if not result.output(0).names & {*names}:
                    model.remove_result(result)
            # One batch at a time on all cores: several at once, each on some of them, have the same throughput on the
            # whole, and a higher latency. A model of fixed size is no faster than one for batches of any size.
            options = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = openvino.Core().compile_model(model, "CPU", options)
        computed = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if computed != _PRECISIONS[precision]:
            raise ConfigError(
                f"{precision} is impossible with OpenVINO on this CPU, which has {computed}.", "precision"
            )
        self._outputs = [self._compiled.output(name) for name in names]
        self._structure = function.structured_outputs
        self._of_thread = threading.local()

    def __call__(self, images: np.ndarray) -> Any:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        # The outputs are copied, because the next call of this thread writes to the same memory.
        results = request.infer([np.ascontiguousarray(images)], share_inputs=True, share_outputs=False)
        return tf.nest.pack_sequence_as(self._structure, [results[output] for output in self._outputs])


@contextlib.contextmanager
def _without_telemetry() -> Iterator[ModuleType]:
    """Gives OpenVINO, which otherwise reports each import and conversion to Google Analytics, with a stub instead."""
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
