"""The code snippet of the report that loads the model with plain Keras is taken from the page and run."""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from model_trainer import ImageFolder, ModelSpec, Run, load_image
from model_trainer.report.report import write_report
from model_trainer.specs.preprocess import preprocess

MakeFolder = Callable[..., Path]
MEANS = [123.68, 116.779, 103.939]
STDS = [58.395, 57.12, 57.375]


def code_of(page: str) -> str:
    block = re.search(r'aria-label="Python code for plain Keras"><code>(.*?)</code>', page, re.DOTALL)
    assert block
    return html.unescape(block[1])


def run_code(code: str) -> tuple[dict[str, Any], str]:
    """The variables after the code, and what it printed."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, names)
    return names, output.getvalue()


def spec(function: str, arguments: list[float] | None, channels: int = 3, resize: str = "crop") -> ModelSpec:
    return ModelSpec(
        **{"class": "keras.applications.mobilenet_v2.MobileNetV2", "preprocess_func": function},
        preprocess_args=arguments, target_size=(8, 12, channels), resize=resize,
    )  # fmt: skip


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path


def test_the_code_on_the_page_loads_the_evaluated_model_and_predicts(make_folder: MakeFolder, in_folder: Path) -> None:
    model_spec = spec("between_plus_minus_1", None)
    folder = make_folder('it\'s "it"', run=Run(spec=model_spec, train_data=ImageFolder("data")))
    pixels = keras.Input((8, 12, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(pooled))
    model.save(folder / "model_max_acc.hdf5")
    names, printed = run_code(code_of(write_report(folder).read_text()))
    expected = model(load_image("photo.jpg", model_spec)[None]).numpy()[0]
    np.testing.assert_allclose(names["probabilities"], expected, atol=1e-6)
    best = ["bag", "coat", "dress"][int(expected.argmax())]
    assert printed.splitlines()[0] == f"{best}: {expected.max():.3f}"


def without_model(code: str) -> str:
    """The code without loading the model, up to the prepared image."""
    return re.sub(r"model = .*?\n\)\n", "", code, flags=re.DOTALL).partition("probabilities =")[0]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("none", None), ("between_plus_minus_1", None), ("mean_subtraction", MEANS),
        ("mean_subtraction_plus_minus_1", MEANS), ("bgr_mean_subtraction", MEANS),
        ("mean_std_normalization", [*MEANS, *STDS]),
    ],
)  # fmt: skip
def test_the_code_preprocesses_images_as_the_spec_does(
    make_folder: MakeFolder, in_folder: Path, function: str, arguments: list[float] | None
) -> None:
    run = Run(spec=spec(function, arguments), train_data=ImageFolder("data"))
    names, _ = run_code(without_model(code_of(write_report(make_folder(run=run)).read_text())))
    pixels = np.asarray(Image.open("photo.jpg"))
    np.testing.assert_allclose(names["batch"][0], preprocess(pixels, function, arguments or ()), atol=1e-5)


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_an_image_of_another_shape_is_resized_nearly_as_by_the_spec(
    make_folder: MakeFolder, in_folder: Path, resize: str
) -> None:
    ramp = np.linspace(0, 255, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)
    Image.fromarray(ramp).save("photo.jpg", quality=95)
    run = Run(spec=spec("none", None, resize=resize), train_data=ImageFolder("data"))
    names, _ = run_code(without_model(code_of(write_report(make_folder(run=run)).read_text())))
    assert np.abs(names["batch"][0] - load_image("photo.jpg", run.spec)).max() < 12


def test_gray_images_keep_one_channel(make_folder: MakeFolder, in_folder: Path) -> None:
    model_spec = spec("none", None, channels=1)
    code = code_of(write_report(make_folder(run=Run(spec=model_spec, train_data=ImageFolder("data")))).read_text())
    names, _ = run_code(without_model(code))
    assert names["batch"].shape == (1, 8, 12, 1)


def test_the_code_names_a_preprocessing_function_of_the_user(make_folder: MakeFolder) -> None:
    run = Run(spec=spec("my_code.prepare", None), train_data=ImageFolder("data"))
    assert "preprocess them first, by my_code.prepare" in write_report(make_folder(run=run)).read_text()
