"""Files that run code when Keras loads them, and archives that are not what they seem: each is refused, nothing is run.

The other holes are in `test_untrusted_arrays.py` (what HDF5 can hold), `test_untrusted_structure.py` (how it is
linked) and `test_untrusted_descriptions.py` (what our own description may ask for).

| hole | test |
| --- | --- |
| Lambda (CVE-2024-3660, and CVE-2025-9905 in `.h5`) | `..._hdf5...[lambda_of_keras_2]`, `[lambda_of_keras_3]` |
| `module` and `class_name` of anything (CVE-2025-1550) | `[function_of_any_module]`, `[class_of_any_module]` |
| functions of Keras itself (CVE-2025-8747) | `[function_of_keras_that_downloads]` |
| safe mode switched off by the file (CVE-2025-9906) | `[function_that_switches_safety_off]` |
| a SavedModel as a layer (CVE-2026-1462) | `[saved_model_of_tensorflow]` |
| registered classes | `[registered_class]` |
| the same in a `.keras` | `test_code_in_the_config_of_an_archive_is_refused_and_not_run[...]` |
| pickles, bare and in `.npz` | `test_a_pickle_is_refused_and_not_run`, `test_a_pickle_in_an_npz_...` |
| Keras' loaders, whatever they do | `test_loading_never_calls_the_loaders_of_keras` |
| members that lie elsewhere, are foreign or missing | `test_an_archive_with_other_members_is_refused` |
| two members of one name, which readers choose differently | `test_an_archive_with_the_same_member_twice_is_refused` |
| members that explode, or declare too little | `test_an_archive_that_explodes_...`, `..._that_declares_less_...` |
| compressed with other methods than zip's own | `test_an_archive_compressed_with_another_method_is_refused` |
| HDF5's holes inside an archive | `test_hdf5_in_an_archive_is_checked_as_strictly` |
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network
from model_trainer.errors import ModelFileError
from model_trainer.model_files.load import load_model
from model_trainer.model_files.weights import InitializedNetwork, initialize_network

SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})


def start(path: Path) -> InitializedNetwork:
    return initialize_network(SPEC, Network(), Classification(), 3, str(path))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that every payload here would create."""
    return tmp_path / "marker"


def code_that_touches(marker: Path) -> str:
    """A function as `Lambda` stores it: marshalled byte code."""
    source = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    code = compile(source, "payload", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def keras_3(class_name: str, module: str, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def payloads(marker: Path) -> dict[str, dict[str, Any]]:
    raw = code_that_touches(marker)
    older_lambda = {"function": [raw, None, None], "function_type": "lambda", "name": "l"}
    newer_lambda = {
        "function": {"class_name": "__lambda__", "config": {"code": raw, "defaults": None, "closure": None}},
        "name": "l",
    }
    function = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
    call = {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "function"}
    return {
        "lambda_of_keras_2": {"class_name": "Lambda", "config": older_lambda},  # CVE-2024-3660, CVE-2025-9905
        "lambda_of_keras_3": keras_3("Lambda", "keras.layers", **newer_lambda),
        "function_of_any_module": keras_3("Dense", "keras.layers", activation=function),  # CVE-2025-1550
        "function_of_keras_that_downloads": keras_3("Dense", "keras.layers", activation=call),  # CVE-2025-8747
        "function_that_switches_safety_off": keras_3("enable_unsafe_deserialization", "keras.config"),
        "class_of_any_module": keras_3("Popen", "subprocess", args=["touch", str(marker)]),
        "saved_model_of_tensorflow": keras_3("TFSMLayer", "keras.layers", filepath=str(marker.parent)),
        "registered_class": {"module": None, "class_name": "payload>Layer", "config": {}, "registered_name": "a>Layer"},
    }


def functional(layer: dict[str, Any]) -> str:
    return json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}})


PAYLOADS = sorted(payloads(Path("marker")))


@pytest.mark.parametrize("name", PAYLOADS)
def test_code_in_the_config_of_an_hdf5_is_refused_and_not_run(name: str, model_file: Path, marker: Path) -> None:
    with h5py.File(model_file, "r+") as file:
        file.attrs["model_config"] = functional(payloads(marker)[name])
    with pytest.raises(ModelFileError, match="its model_config names .*author's own code.*--trust"):
        load_model(model_file)
    start(model_file)  # takes the arrays, as the network is the declared one
    assert not marker.exists()


def test_the_payload_runs_when_keras_loads_it(marker: Path) -> None:
    layer = payloads(marker)["lambda_of_keras_3"]["config"]
    keras.layers.Lambda.from_config(layer, safe_mode=False)(np.zeros((1, 1), np.float32))
    assert marker.exists()


@pytest.mark.parametrize("name", PAYLOADS)
def test_code_in_the_config_of_an_archive_is_refused_and_not_run(name: str, archive: Any, marker: Path) -> None:
    path = archive(**{"config.json": functional(payloads(marker)[name]).encode()})
    with pytest.raises(ModelFileError, match="its model_config names .*author's own code.*--trust"):
        load_model(path)
    start(path)
    assert not marker.exists()


def test_a_config_of_keras_own_layers_is_accepted(model_file: Path) -> None:
    with h5py.File(model_file) as file:
        assert "Conv2D" in file.attrs["model_config"]
    assert load_model(model_file).classes == ("blue", "green", "red")


def test_loading_never_calls_the_loaders_of_keras(
    model_file: Path, archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("Keras was asked to load")

    for name in ("load_model", "load_weights", "deserialize_keras_object"):
        monkeypatch.setattr(f"keras.saving.{name}", refuse)
    for name in ("from_config", "load_weights"):
        monkeypatch.setattr(keras.Model, name, refuse)
    monkeypatch.setattr("keras.models.model_from_json", refuse)
    for path in (model_file, archive()):
        load_model(path)
        start(path)


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, marker: Path, protocol: int) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(pickle.dumps(Touch(marker), protocol))
    for load in (load_model, start):
        with pytest.raises(ModelFileError, match="is a pickle, and loading it would run the code in it"):
            load(path)
    assert not marker.exists()


def test_a_pickle_in_an_npz_is_refused_and_not_run(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, weights=np.array([Touch(marker)], object))
    with pytest.raises(ModelFileError, match="it holds 'weights.npy'; a .keras file has only"):
        start(path)
    assert not marker.exists()


@pytest.fixture
def archive(model_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a `.keras` archive of the valid file; named members are replaced, None leaves one out."""
    (tmp_path / "apart").mkdir()
    good = tmp_path / "apart" / "model.keras"
    with h5py.File(model_file) as file:
        description = file.attrs["model_spec"]
    load_model(model_file).model.save(good)
    with zipfile.ZipFile(good) as saved:
        members = {name: saved.read(name) for name in saved.namelist()}
    good.with_name("model_spec.json").write_text(description)

    def make(compression: int = zipfile.ZIP_STORED, **changes: bytes | None) -> Path:
        with zipfile.ZipFile(good, "w", compression) as made:
            for name, content in (members | changes).items():
                if content is not None:
                    made.writestr(name, content)
        return good

    return make


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_gives_the_arrays_of_the_hdf5(archive: Any, model_file: Path, compression: int) -> None:
    ours, theirs = load_model(archive(compression)).model, load_model(model_file).model
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"../../marker": b"text"}, r"it holds '../../marker'; a .keras file has only"),
        ({"/etc/marker": b"text"}, "it holds '/etc/marker'; a .keras file has only"),
        ({"assets/payload.py": b"text"}, "it holds 'assets/payload.py'"),
        ({"model.weights.h5": None}, "it holds no model.weights.h5"),
        ({"model.weights.h5": b"no HDF5"}, "does not begin with the bytes of HDF5"),
        ({"model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(64)}, "an HDF5 feature that Keras does not use"),
        ({"config.json": b"{" * 10}, "its model_config is not JSON"),
        ({"config.json": b"[" * 10**5}, "its model_config is not JSON"),
    ],
)
def test_an_archive_with_other_members_is_refused(archive: Any, changes: dict[str, bytes], reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        load_model(archive(**changes))


def test_an_archive_with_the_same_member_twice_is_refused(archive: Any) -> None:
    path = archive()
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("model.weights.h5", b"other")
    with pytest.raises(ModelFileError, match="it holds the same name twice"):
        start(path)


def test_an_archive_that_explodes_is_refused(archive: Any) -> None:
    path = archive(zipfile.ZIP_DEFLATED, **{"model.weights.h5": bytes(20_000_000)})
    assert path.stat().st_size < 50_000
    with pytest.raises(ModelFileError, match="it declares 20,000,000 bytes of model.weights.h5"):
        start(path)


def test_an_archive_that_declares_less_than_it_decompresses_to_is_damaged(archive: Any) -> None:
    path = archive(zipfile.ZIP_DEFLATED, **{"model.weights.h5": bytes(20_000_000)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 20_000_000), struct.pack("<I", 1000)))
    with pytest.raises(ModelFileError, match="is damaged or not a Keras file: Bad CRC-32"):
        start(path)


def test_an_archive_with_a_long_config_is_refused(archive: Any) -> None:
    with pytest.raises(ModelFileError, match="it declares 20,000,000 bytes of config.json"):
        start(archive(zipfile.ZIP_DEFLATED, **{"config.json": bytes(20_000_000)}))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_compressed_with_another_method_is_refused(archive: Any, method: int) -> None:
    with pytest.raises(ModelFileError, match="compressed with another method than deflate"):
        start(archive(method))


def test_hdf5_in_an_archive_is_checked_as_strictly(archive: Any, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"password" * 108)
    content = io.BytesIO(zipfile.ZipFile(archive()).read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        del file["layers/conv2d/vars/0"]
        outside = [(str(tmp_path / "secret"), 0, 864)]
        file.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 8), np.float32, external=outside)
    with pytest.raises(ModelFileError, match="'layers/conv2d/vars/0' stores its values in another file"):
        start(archive(**{"model.weights.h5": content.getvalue()}))
