"""Initial weights: from files of every kind, from ImageNet, and random ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import logging

from model_trainer import Classification, ModelSpec, Network
from model_trainer.errors import ConfigError, ModelFileError
from model_trainer.model_files.weights import InitializedNetwork, Origin, initialize_network
from model_trainer.network.build import build_network

Save = Callable[[keras.Model, Path], str]
SPEC = ModelSpec(
    **{
        "class": "model_trainer.testing.small_backbone",
        "target_size": [16, 16, 3],
        "kwargs": {"batch_normalization": True},
    }
)
VGG = ModelSpec.named("vgg16", target_size=[32, 32, 3])


def start(weights: str | None, num_classes: int = 3, spec: ModelSpec = SPEC) -> InitializedNetwork:
    return initialize_network(spec, Network(), Classification(), num_classes, weights)


@pytest.fixture
def trained() -> keras.Model:
    model = build_network(SPEC, Network(), Classification(), 3).model
    random = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random.normal(0, 1, variable.shape))
    return model


def assert_equal_weights(left: keras.Model, right: keras.Model, but: tuple[str, ...] = ()) -> None:
    for ours, theirs in zip(left.layers, right.layers, strict=True):
        for a, b in zip(ours.weights, theirs.weights, strict=True):
            same = a.shape == b.shape and np.array_equal(a.numpy(), b.numpy())
            assert same == (ours.name not in but), ours.name


SUFFIXES = [".hdf5", ".h5", ".keras", ".weights.h5"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_are_loaded_from_a_file_of_any_kind(
    trained: keras.Model, tmp_path: Path, suffix: str, save: Save
) -> None:
    initialized = start(save(trained, tmp_path / f"model{suffix}"))
    assert_equal_weights(initialized.network.model, trained)
    assert initialized.weights == str(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_classes_get_a_new_head_and_the_log_says_so(
    trained: keras.Model, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture, save: Save
) -> None:
    logging.get_absl_logger().addHandler(caplog.handler)
    logging.set_verbosity(logging.DEBUG)
    initialized = start(save(trained, tmp_path / f"model{suffix}"), num_classes=5)
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert_equal_weights(initialized.network.model, trained, but=("logits",))
    line = next(record.getMessage() for record in caplog.records if record.levelname == "INFO")
    path = tmp_path / f"model{suffix}"
    assert line == (f"Loaded the weights of 3 layers from {path}. Not loaded: logits. Randomly initialized: logits.")
    assert "Loaded: conv1, norm1, conv2. Not loaded: logits. Randomly initialized: logits." in caplog.text


def test_a_file_of_another_network_is_refused_with_the_name_of_the_layer(tmp_path: Path, save: Save) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="other")])
    with pytest.raises(ModelFileError, match="does not fit small_backbone: layer 'conv1' needs"):
        start(save(other, tmp_path / "other.hdf5"))


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.hdf5").write_bytes(content)
    with pytest.raises(ModelFileError, match="bad.hdf5"):
        start(str(tmp_path / "bad.hdf5"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"There is no model file {re.escape(str(tmp_path))}/none.hdf5"):
        start(str(tmp_path / "none.hdf5"))


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path), raising=False)


@pytest.mark.usefixtures("no_internet")
def test_imagenet_weights_without_an_internet_connection_are_an_error_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"`weights` is \"imagenet\", but .* Give a file, or None to start"):
        start("imagenet", spec=VGG)


@pytest.mark.usefixtures("no_internet")
def test_auto_without_an_internet_connection_uses_random_weights_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.get_absl_logger().addHandler(caplog.handler)
    initialized = start("auto", spec=VGG)
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert initialized.weights == "random"
    assert "WEIGHTS ARE RANDOM: ImageNet's could not be downloaded" in caplog.text


def test_a_resumed_run_still_warns_that_its_weights_were_random() -> None:
    def warning(weights: str | None, used: str) -> str:
        return initialize_network(VGG, Network(), Classification(), 3, weights, Origin(used, None)).warning

    assert warning("auto", "random").startswith("WEIGHTS ARE RANDOM: ImageNet's were not available when the run began.")
    assert warning("auto", "imagenet") == warning(None, "random") == ""


def test_imagenet_weights_for_an_own_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="is not one of keras.applications"):
        start("imagenet")


def test_imagenet_weights_for_gray_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="are for 3 channels, not 1"):
        start("imagenet", spec=ModelSpec.named("vgg16", target_size=[32, 32, 1], preprocess_func="none"))


def test_the_preprocessing_that_train_model_once_declared_still_trains_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    source = keras.applications.vgg16.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    path = save(source, tmp_path / "vgg16.weights.h5")
    monkeypatch.setattr("keras.src.applications.vgg16.file_utils.get_file", lambda *_, **__: path)
    older = VGG.changed_all({"preprocess_func": "mean_subtraction", "preprocess_args": [103.939, 116.779, 123.68]})
    logging.get_absl_logger().addHandler(caplog.handler)
    initialized = start("imagenet", spec=older)
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert initialized.weights == "imagenet"
    assert "its ImageNet weights were trained with different preprocessing" in caplog.text


def test_imagenet_weights_are_downloaded_from_the_address_of_keras(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, save: Save
) -> None:
    # The download itself is replaced by a file that Keras' own class wrote.
    source = keras.applications.vgg16.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    path = save(source, tmp_path / "vgg16.weights.h5")
    asked = []

    def get_file(name: str, url: str, **options: object) -> str:
        asked.append(url)
        return path

    monkeypatch.setattr("keras.src.applications.vgg16.file_utils.get_file", get_file)
    initialized = start("imagenet", spec=VGG)
    assert initialized.weights == "imagenet"
    folder = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    assert asked == [f"{folder}vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    kernel = initialized.network.model.get_layer("block1_conv1").kernel.numpy()
    np.testing.assert_array_equal(kernel, source.get_layer("block1_conv1").kernel.numpy())
