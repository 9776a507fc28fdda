"""Chooses what computes a trained model: TensorFlow or OpenVINO."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer.errors import ConfigError
from model_trainer.inference.keras_graph import KerasGraph
from model_trainer.inference.openvino import OpenVINO, has_openvino
from model_trainer.model_files.trained_model import Engine, TrainedModel

__all__ = ["EngineName", "Precision", "with_engine"]

EngineName = Literal["auto", "keras", "openvino"]
Precision = Literal["float32", "bfloat16", "float16"]


def with_engine(
    trained: TrainedModel,
    engine: EngineName = "auto",
    precision: Precision = "float32",
    *,
    batch_sizes: Sequence[int] = (1, 8),
) -> TrainedModel:
    """Returns the same model with its fastest exact engine, or with the one that is asked for.

    It takes seconds, so it is for a server and for many images.
    """
    if precision != "float32":
        raise ConfigError("needs a passed check.", "precision")
    if engine == "openvino":
        return replace(trained, engine=OpenVINO(trained, precision))
    graph = KerasGraph(trained, precision)
    if engine == "keras" or not has_openvino():
        return replace(trained, engine=graph)
    return replace(trained, engine=graph)
