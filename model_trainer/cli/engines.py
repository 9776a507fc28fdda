"""The options that choose the inference engine and its precision."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["Engine", "EngineName", "FasterPrecision"]


class EngineName(StrEnum):
    """An inference engine."""

    auto = "auto"
    keras = "keras"
    openvino = "openvino"


class FasterPrecision(StrEnum):
    """A precision that is faster than float32 on some devices."""

    bfloat16 = "bfloat16"
    float16 = "float16"


Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="Inference engine: keras (TensorFlow) or openvino; auto: the faster one if there are many images and it "
        "gives the same results.",
    ),
]
