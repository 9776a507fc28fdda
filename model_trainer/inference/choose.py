"""Chooses the inference engine of a trained model: TensorFlow or OpenVINO, whichever is faster on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.inference.keras_graph import KerasGraph
from model_trainer.inference.openvino import OpenVINO, has_openvino
from model_trainer.inference.precision_check import find_check
from model_trainer.model_files.trained_model import ConcurrentEngine, Engine, TrainedModel

__all__ = [
    "MANY_IMAGES",
    "EngineName",
    "Precision",
    "agree",
    "choose_for_many",
    "for_concurrent_calls",
    "make_engine",
    "sample_images",
    "with_engine",
]

EngineName = Literal["auto", "keras", "openvino"]
Precision = Literal["float32", "bfloat16", "float16"]

# Preparing the engines takes as long as they save with so many images: 6 s, and 2 to 5 ms for each image of
# MobileNetV2 on two cores; a larger network takes longer for both.
MANY_IMAGES = 2000

# Float32 numbers have a relative precision of 6e-8, which the layers of most networks multiply by less than 1000:
# OpenVINO moved MobileNetV2, ResNet50 and ConvNeXtTiny by up to 4e-5 of the largest output, bfloat16 by 5e-3 and more.
# What rounding does to the network at hand is measured, too: TensorFlow computes it with batch normalization folded and
# unfolded. That moved a MobileNetV3 with random weights by 2e-3.
TOLERANCE = 1e-4  # of the largest output
ROUNDING_FACTOR = 4.0
_NOT_REASONS = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted")
_TINY = 1e-30  # probabilities below are not compared

_SECONDS_TO_MEASURE = 1.5  # for each batch size; at least one round
_ROUNDS = 7
_MIN_GAIN = 1.05  # OpenVINO has to be faster by more than the noise


def with_engine(
    trained: TrainedModel,
    engine: EngineName = "auto",
    precision: Precision = "float32",
    *,
    batch_sizes: Sequence[int] = (1, 8),
) -> TrainedModel:
    """Returns the same model with the fastest engine that computes the same probabilities, or the one asked for.

    It takes seconds, and memory for another copy of the weights, so it is for a server and for many images. "auto" is
    OpenVINO if it is installed, there is no GPU, it can convert the network, agrees with TensorFlow on sample images
    within float32 rounding, and is faster; otherwise TensorFlow with constant weights.

    Args:
        trained: the model. Its weights are copied.
        engine: "keras" for TensorFlow, "openvino", or "auto".
        precision: a faster one needs a passed check, see `find_check`; "auto" is then the engine that passed.
        batch_sizes: the batch sizes for which the speeds of the engines are compared.

    Raises:
        MissingExtra: `engine` is "openvino", which is not installed.
        ConfigError: the engine that was asked for is not available, or `precision` has no passed check.
        ModelFileError: the model file of the check cannot be read.

    Example:
        >>> import pathlib
        >>> network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
        >>> network.add(keras.layers.Dense(2, activation="softmax"))
        >>> spec = ModelSpec(target_size=[16, 16, 3])
        >>> model = TrainedModel(network, spec, Classification(), ("cat", "dog"), pathlib.Path("pets.h5"))
        >>> with_engine(model, "keras").engine.name
        'keras'
    """
    if precision != "float32":
        check = find_check(trained.path, precision, None if engine == "auto" else engine)
        return replace(trained, engine=make_engine(trained, check.engine, precision))
    if engine != "auto":
        return replace(trained, engine=make_engine(trained, engine))
    if keras.backend.backend() != "tensorflow" or tf.config.functions_run_eagerly():
        return trained
    graph = KerasGraph(trained)
    other = None if tf.config.list_logical_devices("GPU") else _openvino(trained, graph)
    return replace(trained, engine=graph if other is None else _faster(trained, graph, other, batch_sizes))


def choose_for_many(trained: TrainedModel, num_images: int, engine: EngineName = "auto") -> TrainedModel:
    """Returns the model with an engine for `num_images` images; a model that has an engine keeps it.

    "auto" is that of `with_engine` for at least `MANY_IMAGES`; for fewer images the model is returned as it is. Errors
    as in `with_engine`.
    """
    if trained.engine is not None or (engine == "auto" and num_images < MANY_IMAGES):
        return trained
    return with_engine(trained, engine, batch_sizes=(8,))


def for_concurrent_calls(engine: Engine | None, max_batch_size: int) -> ConcurrentEngine | None:
    """Returns an engine for several calls at once, each on one core; None if there is none.

    TensorFlow does not need one: it divides the operations of all calls among its threads.

    Args:
        engine: the engine of a model.
        max_batch_size: of the batches that it will compute.
    """
    return engine.for_concurrent_calls(max_batch_size) if isinstance(engine, OpenVINO) else None


def make_engine(trained: TrainedModel, engine: str, precision: str = "float32") -> Engine:
    """Makes an engine, whether it is exact or not.

    Raises:
        MissingExtra, ConfigError: the engine or the precision is not available.
    """
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(f"needs Keras' TensorFlow backend, got {keras.backend.backend()!r}.", "engine")
    if engine == "keras":
        return KerasGraph(trained, precision)
    try:
        return OpenVINO(trained, precision)
    except ModelTrainerError:
        raise
    except Exception as error:
        raise ConfigError(
            f"openvino cannot compute {trained.path}: {_reason(error)}. Use the engine keras.", "engine"
        ) from error


def _reason(error: Exception) -> str:
    """The line of OpenVINO's long message that names the operation; earlier lines refer to its C++ code."""
    lines = [line.strip(" -.") for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_NOT_REASONS) and not line.endswith(":")]
    return (reasons or [type(error).__name__])[0][:300]


def sample_images(trained: TrainedModel, count: int) -> np.ndarray:
    """Random images from coarse to fine, uint8 `(count, *target_size)`; the same each time."""
    height, width, channels = trained.spec.target_size
    random, images = np.random.default_rng(0), []
    for number in range(count):
        cells = 4 ** (1 + number % 4)
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        images.append(random.integers(0, 256, (cells, cells, channels), np.uint8)[rows][:, columns])
    return np.stack(images)


def agree(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], again: Sequence[np.ndarray]) -> bool:
    """Whether outputs differ by no more than float32 rounding, see `TOLERANCE`.

    Their logarithms are compared as well: where the probability of one class is almost 1 for all images, differences of
    the other classes would be too small to notice.

    Args:
        outputs: those of the engine.
        expected, again: those of TensorFlow, computed in two ways that differ by rounding.
    """
    if [each.shape for each in outputs] != [each.shape for each in expected]:
        return False
    for one, other, third in zip(outputs, expected, again, strict=True):
        is_finite = np.isfinite(other)
        if not np.array_equal(np.isfinite(one), is_finite):
            return False
        arrays = [each[is_finite & np.isfinite(third)] for each in (one, other, third)]
        if arrays[0].size and not (_is_rounding(*arrays) and _is_rounding(*map(_logarithms, arrays))):
            return False
    return True


def _is_rounding(outputs: np.ndarray, expected: np.ndarray, again: np.ndarray) -> bool:
    allowed = TOLERANCE * np.abs(expected).max() + ROUNDING_FACTOR * np.abs(again - expected).max()
    return bool(np.abs(outputs - expected).max() <= allowed)


def _logarithms(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.abs(values), _TINY))


def _openvino(trained: TrainedModel, graph: KerasGraph) -> OpenVINO | None:
    """The model in OpenVINO; None, with a line in the log, if it is not installed or not exact."""
    if not has_openvino():
        return None
    images = sample_images(trained, 4)
    try:
        other = OpenVINO(trained)
        is_exact = agree(tf.nest.flatten(other(images)), tf.nest.flatten(graph(images)), graph.unfolded(images))
    except Exception as error:  # noqa: BLE001  # its C++ code raises any kind; TensorFlow can always be used
        logging.info("OpenVINO cannot compute this network: %s", _reason(error))
        return None
    if not is_exact:
        logging.info("OpenVINO is not used: its results for this network differ by more than rounding.")
    return other if is_exact else None


def _faster(trained: TrainedModel, graph: Engine, other: Engine, batch_sizes: Sequence[int]) -> Engine:
    """The faster one of two engines, by the geometric mean of the ratios of their times over the batch sizes."""
    gain, times = 1.0, []
    for size in batch_sizes:
        seconds = measure((graph, other), sample_images(trained, size))
        gain *= (seconds[0] / seconds[1]) ** (1 / len(batch_sizes))
        times.append(f"{size}: {seconds[0] * 1000:.1f} and {seconds[1] * 1000:.1f} ms")
    chosen = other if gain >= _MIN_GAIN else graph
    logging.info("Engine: %s. Batches with TensorFlow and OpenVINO, %s.", chosen.name, "; ".join(times))
    return chosen


def measure(engines: Sequence[Engine], images: np.ndarray) -> list[float]:
    """Returns for each engine the seconds for a batch: the minimum of alternating runs, which excludes most other work.

    On CPUs they are the geometric mean of wall time, which is the latency of an idle machine, and of processor time,
    which limits the throughput of a busy one. The first call of an engine, which allocates memory, is one of the runs.
    """
    is_cpu = not tf.config.list_logical_devices("GPU")
    best = [math.inf] * len(engines)
    started = time.monotonic()
    for number in range(_ROUNDS):
        if number and time.monotonic() - started > _SECONDS_TO_MEASURE:
            break
        for index, engine in enumerate(engines):
            wall, processor = time.perf_counter(), time.process_time()
            engine(images)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            best[index] = min(best[index], math.sqrt(wall * processor) if is_cpu and processor else wall)
    return best
