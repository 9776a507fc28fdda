"""Predictions for many image files: order, memory, threads, engines and interruption."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model_trainer import Classification, ModelSpec, predict
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving import predictor
from model_trainer.serving.predictor import predict_images

NUM_IMAGES = 23


class Brightness:
    """An engine that predicts the mean brightness and records its batch sizes."""

    name = "keras"
    precision = "float32"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        mean = images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255
        return np.concatenate([mean, 1 - mean], axis=1)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    network.add(keras.layers.Dense(2, activation="softmax"))
    spec = ModelSpec(target_size=[8, 8, 3], preprocess_func="between_plus_minus_1")
    return TrainedModel(network, spec, Classification(), ("light", "dark"), Path("model.hdf5"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of increasing brightness; the fifth file is not an image, and the last path repeats the first."""
    folder = tmp_path_factory.mktemp("photos")
    created = []
    for number in range(NUM_IMAGES):
        created.append(str(folder / f"{number}.png"))
        Image.new("RGB", (8, 8), (number * 10,) * 3).save(created[-1])
    Path(created[4]).write_text("not an image")
    return [*created, created[0]]


def light(results: Sequence[dict[str, object]]) -> list[float | None]:
    """The probability of "light" for each image."""
    return [
        next((each["probability"] for each in result.get("predictions", ()) if each["label"] == "light"), None)
        for result in results
    ]


def test_predictions_are_in_the_order_of_the_images(model: TrainedModel, paths: list[str]) -> None:
    results = list(predict_images(replace(model, engine=Brightness()), paths, batch_size=4))
    assert [result["image"] for result in results] == paths
    expected = [number * 10 / 255 for number in range(NUM_IMAGES)] + [0.0]
    actual = light(results)
    assert actual.pop(4) is None
    np.testing.assert_allclose(actual, expected[:4] + expected[5:], atol=1e-6)


def test_a_file_that_is_not_an_image_has_the_reason(model: TrainedModel, paths: list[str]) -> None:
    results = list(predict_images(replace(model, engine=Brightness()), paths))
    assert results[4] == {"image": paths[4], "error": "is not an image"}


def test_unreadable_images_do_not_take_a_place_in_a_batch(model: TrainedModel, paths: list[str]) -> None:
    engine = Brightness()
    list(predict_images(replace(model, engine=engine), paths, batch_size=10))
    assert engine.batches == [9, 10, 4]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_all_engines_predict_the_same(model: TrainedModel, paths: list[str], engine: str) -> None:
    plain, other = (predict(model, paths, engine=each) for each in ("auto", engine))
    assert [each["image"] for each in plain] == [each["image"] for each in other]
    for one, two in zip(light(plain), light(other), strict=True):
        assert one == two or one == pytest.approx(two, abs=1e-5)
    assert np.ptp([each for each in light(plain) if each is not None]) > 0.01


def test_at_most_three_batches_are_decoded_ahead(
    model: TrainedModel, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def read(path: str, spec: ModelSpec) -> np.ndarray:
        decoded.append(path)
        return np.zeros(spec.target_size, np.uint8)

    monkeypatch.setattr(predictor, "read_image", read)
    results = predict_images(replace(model, engine=Brightness()), paths, batch_size=4)
    next(results)
    assert len(decoded) <= 4 + predictor.BATCHES_AHEAD * 4
    results.close()


def test_images_are_decoded_while_the_network_computes(
    model: TrainedModel, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded_next = threading.Event()

    def read(path: str, spec: ModelSpec) -> np.ndarray:
        if path == paths[7]:
            decoded_next.set()
        return np.zeros(spec.target_size, np.uint8)

    class Waiting(Brightness):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            assert decoded_next.wait(60)  # an image of the second batch
            return super().__call__(images)

    monkeypatch.setattr(predictor, "read_image", read)
    assert len(list(predict_images(replace(model, engine=Waiting()), paths, batch_size=4))) == len(paths)


def test_after_ctrl_c_no_decoder_thread_is_left(model: TrainedModel, paths: list[str]) -> None:
    class Interrupted(Brightness):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(predict_images(replace(model, engine=Interrupted()), paths, batch_size=4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoder")]


def test_on_a_terminal_a_progress_bar_counts_images(model: TrainedModel, paths: list[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    list(predict_images(replace(model, engine=Brightness()), paths, console=console))
    assert "predicting" in console.file.getvalue()
    assert f"/{len(paths)}" in console.file.getvalue()


def test_no_images_give_no_predictions(model: TrainedModel) -> None:
    results: Iterator[dict[str, object]] = predict_images(replace(model, engine=Brightness()), [])
    assert list(results) == []
