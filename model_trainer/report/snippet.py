"""Python code that loads the model of a run with plain Keras and classifies an image."""

from __future__ import annotations

from typing import Any

from model_trainer.report.json_files import shortened
from model_trainer.report.run_files import RunFiles

__all__ = ["plain_keras", "with_model_trainer"]

# What `specs/preprocess.py` computes, in NumPy; PIXELS is the float32 array.
FORMULAS = {
    "none": "PIXELS",
    "between_plus_minus_1": "PIXELS / 127.5 - 1",
    "mean_subtraction": "(PIXELS - {first}) / 127.5",
    "mean_subtraction_plus_minus_1": "(PIXELS - {first}) / 255",
    "bgr_mean_subtraction": "(PIXELS - {first})[..., ::-1]",
    "mean_std_normalization": "(PIXELS - {first}) / {second}",
}
RESIZED = {
    "crop": "ImageOps.fit(image, size, how)",
    "squash": "image.resize(size, how)",
    "pad": "ImageOps.pad(image, size, how, color={background})",
}
FILTERS = {"nearest": "NEAREST", "bicubic": "BICUBIC", "lanczos3": "LANCZOS", "area": "BOX"}
WHITE, MAX_NUMBER = [255, 255, 255], 1e9
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def plain_keras(run: RunFiles) -> list[str]:
    """Lines of code that need Keras, NumPy and Pillow, and a photo.jpg; empty without a model or its spec."""
    spec = run.spec
    size, background = _numbers(spec.get("target_size"), 3), _numbers(spec.get("background") or WHITE, 3)
    arguments = _numbers(spec.get("preprocess_args") or [])
    if not run.models or size is None or size[2] not in MODES or background is None or arguments is None:
        return []
    function = shortened(str(spec.get("preprocess_func")))
    height, width, channels = map(int, size)
    resized = RESIZED.get(str(spec.get("resize")), RESIZED["crop"]).format(background=tuple(map(int, background)))
    resampling = FILTERS.get(str(spec.get("interpolation")), "BILINEAR")
    formula = _formula(function, arguments, channels)
    pixels = "np.asarray(image, np.float32)" + ("[..., None]" if channels == 1 else "")
    lines = [
        "import json",
        "",
        "import keras",
        "import numpy as np",
        f"from PIL import Image{'' if 'ImageOps' not in resized else ', ImageOps'}",
        "",
        f"folder = {str(run.path)!r}",
        "model = keras.models.load_model(",
        f'    f"{{folder}}/{_best(run)}", compile=False',
        ")",
        'with open(f"{folder}/model_spec.json", encoding="utf-8") as file:',
        '    classes = json.load(file)["classes"]',
        "",
        f'image = Image.open("photo.jpg").convert("{MODES[channels]}")',
        f"size, how = ({width}, {height}), Image.Resampling.{resampling}",
        f"image = {resized}",
        f"pixels = {pixels}  # 0 to 255",
    ]
    if formula is None:
        return [*lines, f"batch = pixels[None]  # preprocess them first, by {function}"]
    return [
        *lines,
        f"batch = ({formula})[None]" if formula != "pixels" else "batch = pixels[None]",
        "probabilities = model.predict(batch, verbose=0)[0]",
        "for index in probabilities.argsort()[::-1][:3]:",
        '    print(f"{classes[index]}: {probabilities[index]:.3f}")',
    ]


def with_model_trainer(run: RunFiles) -> list[str]:
    """Lines of code that use Model Trainer, which resizes and preprocesses exactly as in validation."""
    if not run.models:
        return []
    return ["from model_trainer import predict", "", f'predict({str(run.path)!r}, ["photo.jpg"])']


def _best(run: RunFiles) -> str:
    evaluated = run.evaluation.model if run.evaluation is not None else ""
    return evaluated if evaluated in run.models else run.models[0]


def _numbers(value: Any, count: int | None = None) -> list[float] | None:
    """The value in an untrusted spec, if it is a list of numbers, `count` of them if it is given; None otherwise."""
    if not isinstance(value, list) or len(value) != (len(value) if count is None else count):
        return None
    is_number = all(isinstance(each, (int, float)) and abs(each) < MAX_NUMBER for each in value)
    return [float(each) for each in value] if is_number else None


def _formula(function: str, arguments: list[float], channels: int) -> str | None:
    """The expression for `pixels`; None for a custom function."""
    if function not in FORMULAS:
        return None
    first, second = arguments[:channels], arguments[channels : 2 * channels]
    return FORMULAS[function].replace("PIXELS", "pixels").format(first=first, second=second)
