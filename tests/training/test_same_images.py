"""`predict` shows the network the images that validation showed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from model_trainer import ImageFolder, ModelSpec, Run, load_model, predict
from model_trainer.training.train import train_model


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """JPEGs of several sizes, in `train/` and `val/`."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number, size in enumerate([(60, 90), (90, 60), (32, 32)]):
                coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
                coarse.resize(size, Image.Resampling.BICUBIC).save(tmp_path / split / name / f"{number}.jpg")
    return tmp_path


@pytest.mark.usefixtures("plain_graphs", "eager_steps")
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_predict_gives_the_network_the_arrays_of_validation(
    make_run: Callable[..., Run], photos: Path, resize: str
) -> None:
    seen: list[np.ndarray] = []
    preprocess = ModelSpec.preprocess

    def record(spec: ModelSpec, images: Any) -> Any:
        preprocessed = preprocess(spec, images)
        seen.extend(np.asarray(preprocessed))
        return preprocessed

    run = make_run(train_data=ImageFolder(photos / "train"), val_data=ImageFolder(photos / "val"), spec__resize=resize)
    with mock.patch.object(ModelSpec, "preprocess", record):
        result = train_model(run)
        validated = {image.tobytes() for image in seen}
        model = load_model(result.path)
        seen.clear()
        predict(model, [photos / "val"])
    assert len({image.tobytes() for image in seen}) == 6
    assert {image.tobytes() for image in seen} <= validated
