"""A trained model: a Keras network with its preprocessing, classes and task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from model_trainer.display.pages import render_table
from model_trainer.errors import ConfigError
from model_trainer.metrics.calibration import with_temperature
from model_trainer.run.run_html import value_text
from model_trainer.specs import ModelSpec
from model_trainer.tasks.task import Task

__all__ = ["Engine", "TrainedModel"]


class Engine(Protocol):
    """Computes a network without calling its Keras model; `inference.choose.with_engine` makes one.

    Attributes:
        name: "keras" or "openvino".
        precision: "float32", "bfloat16" or "float16".
    """

    name: str
    precision: str

    def __call__(self, images: np.ndarray) -> Any:
        """Computes the outputs of the network, an array or a list of several; any number of threads may call it.

        Args:
            images: uint8 `(batch, height, width, channels)`, not preprocessed.
        """


class ConcurrentEngine(Engine, Protocol):
    """Computes several batches at once, each on one core.

    Attributes:
        batch_size: the batch size with about the least time per image.
        num_calls: the number of concurrent calls that use all cores.
        alone: the same for a single image, on all cores, when there is no other call.
    """

    batch_size: int
    num_calls: int
    alone: Engine


@dataclass(frozen=True)
class TrainedModel:
    """A trained model together with what it takes to predict with it.

    Attributes:
        model: maps preprocessed images, float32 `(batch, height, width, channels)` as `load_image` returns them, to
            the output of the task's activation.
        spec: preprocessing and input size.
        task: decodes the outputs.
        classes: class names in the order of the outputs.
        path: the file that it was loaded from.
        thresholds: for each tag the minimum probability with which it is predicted; None if the task fits none.
        temperature: divides the logits in `calibrated()`, so that the confidence matches the accuracy; None if it has
            not been fitted.
        is_calibrated: whether `probabilities` divides the logits by the temperature.
        engine: computes instead of the Keras model; see `inference.choose.with_engine`.

    Example:
        >>> network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
        >>> network.add(keras.layers.Dense(2, activation="softmax"))
        >>> spec = ModelSpec(target_size=[16, 16, 3])
        >>> model = TrainedModel(network, spec, Classification(), ("cat", "dog"), Path("pets.h5"))
        >>> images = np.zeros((1, 16, 16, 3), np.uint8)
        >>> model.probabilities(images)
        array([[0.5, 0.5]], dtype=float32)
    """

    model: keras.Model
    spec: ModelSpec
    task: Task
    classes: tuple[str, ...]
    path: Path
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None
    is_calibrated: bool = False
    engine: Engine | None = None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Predicts the class probabilities of images.

        Args:
            images: uint8 `(batch, height, width, channels)`, not preprocessed, as `read_image` returns them.

        Returns:
            float32 `(batch, num_classes)`; for a model with several outputs, those of the first one.
        """
        outputs = self._compute(images)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        # Without an activation in the file the task computes the probabilities, as it does in training.
        probabilities = self.task.probabilities(outputs) if self.task.head_activation == "none" else outputs[0]
        result = np.asarray(keras.ops.convert_to_numpy(probabilities), np.float32)
        if not self.is_calibrated:
            return result
        assert self.temperature is not None
        return with_temperature(result, self.temperature)

    @property
    def engine_name(self) -> str:
        """The inference engine: "keras" or "openvino"."""
        return "keras" if self.engine is None else self.engine.name

    @property
    def precision(self) -> str:
        """The precision in which the network is computed: "float32", "bfloat16" or "float16"."""
        return "float32" if self.engine is None else self.engine.precision

    def calibrated(self) -> TrainedModel:
        """Returns the same model with calibrated probabilities, which select the same classes.

        Raises:
            ConfigError: it has no temperature.
        """
        if self.is_calibrated:
            return self
        if self.task.loss_activation != "softmax":
            raise ConfigError(
                f"{self.path} has a sigmoid for each class, so its probabilities cannot be calibrated; a temperature "
                "is for a softmax."
            )
        if self.temperature is None:
            raise ConfigError(
                f"{self.path} has no temperature. It is fitted where the model is evaluated on the validation data of "
                f"its run, if it improves the probabilities: model-trainer evaluate {self.path}"
            )
        return replace(self, is_calibrated=True)

    def _repr_html_(self) -> str:
        height, width, channels = self.spec.target_size
        return render_table(
            self.model.name,
            {
                "file": str(self.path),
                "input": f"{height} × {width} × {channels}, {self.spec.preprocess_func}",
                "parameters": f"{self.model.count_params():,}",
                "task": value_text(self.task),
                "classes": f"{len(self.classes)}: {', '.join(self.classes[:20])}{', …' * (len(self.classes) > 20)}",
            },
        )

    @functools.cached_property
    def _compute(self) -> Callable[[np.ndarray], Any]:
        """Maps uint8 images to the outputs; with the TensorFlow backend it is traced once for batches of any size."""
        if self.engine is not None:
            return self.engine

        def compute(images: Any) -> Any:
            return self.model(self.spec.preprocess(images), training=False)

        if keras.backend.backend() != "tensorflow":
            return compute
        import tensorflow as tf

        if tf.config.functions_run_eagerly():  # to debug
            return compute
        signature = tf.TensorSpec([None, *self.spec.target_size], tf.uint8)
        # The concrete function: with several models in one process, TensorFlow would assume that one function is
        # retraced again and again, and warn.
        traced = tf.function(compute, autograph=False, input_signature=[signature]).get_concrete_function()
        return lambda images: traced(tf.convert_to_tensor(images))
