"""Tells when ImageNet weights would see images that were preprocessed in another way than in their training."""

from __future__ import annotations

import numpy as np

from model_trainer.specs.model_spec import ModelSpec
from model_trainer.specs.table import Preprocessing, TableEntry, entry_of_class, without_own_rescaling

__all__ = ["preprocessing_mismatch"]

# Of the range of the right result. Rounded means and deviations, as keras-model-specs has them for DenseNet, differ by
# 0.2 % and do no harm; the least real confusion, mean_subtraction for between_plus_minus_1, by 9 %.
_TOLERANCE = 0.01


def preprocessing_mismatch(spec: ModelSpec) -> str | None:
    """One line when the class is of `keras.applications` and its ImageNet weights want another preprocessing.

    The results are compared, not the names, so that Keras' own `preprocess_input` as a dotted path is right too.
    None also when ImageNet has no weights for it: another class, or not 3 channels.
    """
    found = entry_of_class(spec.class_)
    if found is None or spec.target_size[2] != 3:
        return None
    right = _right_preprocessing(*found, spec)
    declared = Preprocessing(spec.preprocess_func, spec.preprocess_args)
    if declared == right or _same_result(spec, right):
        return None
    return (
        f"{spec.class_}: its ImageNet weights were trained with another preprocessing, {_shown(right)}; "
        f"this spec has {_shown(declared)}."
    )


def _right_preprocessing(name: str, entry: TableEntry, spec: ModelSpec) -> Preprocessing:
    if spec.kwargs.get("include_preprocessing", True):
        return entry.preprocessing
    return without_own_rescaling(name) or entry.preprocessing


def _same_result(spec: ModelSpec, right: Preprocessing) -> bool:
    # Black, white and the pure colours show a shift, a scale and an exchange of channels.
    colours = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    pixels = np.resize(np.array(colours, np.uint8), (1, *spec.target_size))
    expected = ModelSpec(
        target_size=spec.target_size, preprocess_func=right.function, preprocess_args=right.arguments
    ).preprocess(pixels)
    difference = np.abs(spec.preprocess(pixels) - expected).max()
    return bool(difference <= _TOLERANCE * np.ptp(expected))


def _shown(preprocessing: Preprocessing) -> str:
    text = f'preprocess_func="{preprocessing.function}"'
    if preprocessing.arguments is None:
        return text
    return f"{text}, preprocess_args={list(preprocessing.arguments)}"
