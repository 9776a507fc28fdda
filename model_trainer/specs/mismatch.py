"""Detects a spec whose preprocessing differs from the one that its ImageNet weights were trained with."""

from __future__ import annotations

import numpy as np

from model_trainer.specs.model_spec import ModelSpec
from model_trainer.specs.table import Preprocessing, TableEntry, entry_of_class, without_own_rescaling

__all__ = ["preprocessing_mismatch"]

# Relative to the range of the correct result. Rounded means and standard deviations, as in keras-model-specs for
# DenseNet, differ by a harmless 0.2 %; the smallest real mix-up, mean_subtraction for between_plus_minus_1, by 9 %.
_TOLERANCE = 0.01


def preprocessing_mismatch(spec: ModelSpec) -> str | None:
    """A warning if the ImageNet weights of a `keras.applications` class need different preprocessing, otherwise None.

    Results are compared, not names, so that Keras' own `preprocess_input` as a dotted path is accepted, too. None also
    if there are no ImageNet weights: for another class, or if there are not 3 channels.

    Example:
        >>> spec = ModelSpec.named("vgg19", preprocess_func="between_plus_minus_1")
        >>> preprocessing_mismatch(spec)[:80]
        'keras.applications.vgg19.VGG19: its ImageNet weights were trained with different'
    """
    entry = entry_of_class(spec.class_)
    if entry is None or spec.target_size[2] != 3:
        return None
    required = _required_preprocessing(*entry, spec)
    declared = Preprocessing(spec.preprocess_func, spec.preprocess_args)
    if declared == required or _same_result(spec, required):
        return None
    return (
        f"{spec.class_}: its ImageNet weights were trained with different preprocessing, {_shown(required)}; "
        f"this spec has {_shown(declared)}."
    )


def _required_preprocessing(name: str, entry: TableEntry, spec: ModelSpec) -> Preprocessing:
    if spec.kwargs.get("include_preprocessing", True):
        return entry.preprocessing
    return without_own_rescaling(name) or entry.preprocessing


def _same_result(spec: ModelSpec, required: Preprocessing) -> bool:
    # Black, white and the primary colors reveal a shift, a scale and swapped channels.
    colors = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    pixels = np.resize(np.array(colors, np.uint8), (1, *spec.target_size))
    expected = ModelSpec(
        target_size=spec.target_size, preprocess_func=required.function, preprocess_args=required.arguments
    ).preprocess(pixels)
    difference = np.abs(spec.preprocess(pixels) - expected).max()
    return bool(difference <= _TOLERANCE * np.ptp(expected))


def _shown(preprocessing: Preprocessing) -> str:
    text = f'preprocess_func="{preprocessing.function}"'
    if preprocessing.arguments is None:
        return text
    return f"{text}, preprocess_args={list(preprocessing.arguments)}"
