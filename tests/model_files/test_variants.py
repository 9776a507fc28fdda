"""EfficientNet, for which Keras builds another graph with ImageNet's weights: files are read with the same graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network, Run, load_model, train
from model_trainer.model_files.files import save_model
from model_trainer.model_files.weights import initialize_network
from model_trainer.network.build import build_network

pytestmark = pytest.mark.usefixtures("short_pipeline", "two_blocks")

MakeRun = Callable[..., Run]
SPEC = ModelSpec.named("efficientnetb0", target_size=[32, 32, 3])
STDS = [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def two_blocks() -> Iterator[None]:
    """The first two of its seven kinds of blocks: the variants differ in what comes before them."""
    blocks = keras.src.applications.efficientnet.DEFAULT_BLOCKS_ARGS
    with mock.patch.object(keras.src.applications.efficientnet, "DEFAULT_BLOCKS_ARGS", blocks[:2]):
        yield


@pytest.fixture(scope="module")
def imagenet_file(
    two_blocks: None, tmp_path_factory: pytest.TempPathFactory, randomize: Callable[[keras.Model, np.ndarray], None]
) -> Path:
    """A weights file like the one that Keras downloads: its statistics are ImageNet's means and deviations."""
    model = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    randomize(model, pixels())
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    norm.adapt_mean.assign([0.485, 0.456, 0.406])
    norm.adapt_variance.assign(STDS)
    path = tmp_path_factory.mktemp("imagenet") / "efficientnetb0_notop.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture
def download(imagenet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(imagenet_file))


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that lets all later downloads fail."""

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network")

    return lambda: monkeypatch.setattr("keras.src.applications.efficientnet.file_utils.get_file", refuse)


def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)


def features(model: keras.Model) -> np.ndarray:
    return np.asarray(keras.Model(model.inputs[0], model.get_layer("top_activation").output)(pixels()))


def close(ours: object, reference: object) -> None:
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert np.abs(ours - reference).max() < 1e-3 * reference.std(axis=0).mean()


@pytest.mark.usefixtures("download")
def test_the_variant_matches_what_keras_builds_for_imagenet() -> None:
    reference = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(32, 32, 3))
    used = initialize_network(SPEC, Network(), Classification(), 3, "imagenet").network
    close(used.backbone(pixels()), reference(pixels()))
    assert used.variant == "imagenet"
    rebuilt = build_network(SPEC, Network(), Classification(), 3, variant="imagenet")
    for ours, theirs in zip(rebuilt.model.weights, used.model.weights, strict=True):
        ours.assign(theirs)
    for layer in rebuilt.model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    close(rebuilt.backbone(pixels()), reference(pixels()))


@pytest.mark.slow
@pytest.mark.usefixtures("download", "eager_steps")
def test_a_run_with_imagenet_weights_saves_and_resumes_its_variant(
    make_run: MakeRun, no_download: Callable[[], None]
) -> None:
    reference = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(32, 32, 3))
    run = make_run(spec=SPEC, weights="imagenet", network=Network(dropout_rate=0.0), training__learning_rate=1e-30)
    run = run.changed_all({"network.freeze": "backbone", "val_data": None, "training.batch_size": 15})
    result = train(run)
    assert json.loads((result.path / "model_spec.json").read_text())["variant"] == "imagenet"

    close(features(load_model(result.path / "final_model.hdf5").model), reference(pixels()))
    no_download()  # a run that continues needs neither the network nor the file
    again = train(run.changed("training.epochs", 2), resume=True)
    assert again.path == result.path
    close(features(load_model(result.path / "final_model.hdf5").model), reference(pixels()))


@pytest.mark.long
@pytest.mark.usefixtures("download")
@pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
@pytest.mark.parametrize("weights", ["imagenet", None])
def test_a_file_of_either_variant_is_read_as_that_variant(
    tmp_path: Path, suffix: str, weights: str | None, save: Callable[[keras.Model, Path], str]
) -> None:
    model = keras.applications.EfficientNetB0(weights=weights, include_top=False, input_shape=(32, 32, 3))
    save(model, tmp_path / f"model{suffix}")
    network = initialize_network(SPEC, Network(), Classification(), 3, str(tmp_path / f"model{suffix}")).network
    assert network.variant == weights
    close(network.backbone(pixels()), model(pixels()))


@pytest.mark.usefixtures("download")
def test_the_variant_of_an_older_file_is_inferred_from_its_graph(tmp_path: Path) -> None:
    network = initialize_network(SPEC, Network(), Classification(), 3, "imagenet").network
    rest = {"task": Classification().to_dict(), "network": Network().to_dict(), "classes": ["a", "b", "c"]}
    save_model(network.model, tmp_path / "old.hdf5", {"format": 1, **SPEC.to_dict(), **rest})
    close(features(load_model(tmp_path / "old.hdf5").model), features(network.model))


@pytest.mark.usefixtures("download")
@pytest.mark.parametrize("weights", ["imagenet", "auto"])
def test_the_network_is_built_once(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(*args: Any, **kwargs: Any) -> Any:
        built.append(kwargs)
        return build_network(*args, **kwargs)

    monkeypatch.setattr("model_trainer.model_files.weights.build_network", build)
    assert initialize_network(SPEC, Network(), Classification(), 3, weights).weights == "imagenet"
    assert built == [{"weights": "imagenet"}]
