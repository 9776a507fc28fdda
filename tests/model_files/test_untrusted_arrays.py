"""Model files whose HDF5 content does harm: each is refused with the reason, and takes no memory.

All but the last few are cases of `test_a_hostile_file_is_refused_with_the_reason`, by the name in brackets:

| hole | test |
| --- | --- |
| links to other files | `[external_link]`, `[external_link_outside_the_layers]` |
| soft links | `[soft_link]` |
| numbers that lie in another file (CVE-2026-1669) | `[external_data]` |
| virtual data sets (CVE-2026-12480) | `[virtual_data]` |
| shapes that were never stored (CVE-2026-0897) | `[shape_never_stored]`, `..._in_chunks]`, `..._compressed]` |
| chunks that explode when decompressed, or are huge | `[chunk_that_explodes]`, `[chunk_larger_than_the_array]` |
| filters, which HDF5 loads from libraries | `[filter_of_h5py]`, `[filter_twice]` |
| references to objects and regions | `[references]`, `[references_to_regions]`, `[attribute_of_references]` |
| types that are not numbers | `[varying_length]`, `[records]`, `[strings]`, `[raw_bytes]`, `[attribute_of_records]` |
| committed types | `[type_of_its_own]`, `[named_type]` |
| cycles and second names by hard links | `[groups_in_a_cycle]`, `[array_under_two_names]` |
| too deep, too many | `[too_deep]`, `[too_many]` |
| invalid names, or of another layer | `[name_...]`, `[weight_of_another_layer]`, `[weight_from_the_root]`, ... |
| unknown names | `[array_without_a_layer]`, `[group_outside_the_layers]`, `[layer_that_is_not_listed]` |
| shapes that differ from the network's | `[other_shape]` |
| oversized attributes | `[long_text]`, `test_a_string_that_thousands_of_names_share_is_not_read` |
| damage anywhere | `test_a_truncated_file_is_damaged`, `test_changed_bytes_never_raise_another_error` |
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network
from model_trainer.errors import ModelFileError
from model_trainer.model_files import scan
from model_trainer.model_files.load import load_model
from model_trainer.model_files.weights import initialize_network

SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
KERNEL = "model_weights/conv1/conv1/kernel"
SECRET = b"password" * 108  # as many bytes as the kernel has

Spoil = Callable[[h5py.File, Path], object]
Within = Callable[[float], contextlib.AbstractContextManager[None]]


def replaced(make: Spoil, name: str = KERNEL) -> Spoil:
    """Replaces an array by something else."""

    def spoil(file: h5py.File, folder: Path) -> None:
        del file[name]
        make(file, folder)

    return spoil


def secret_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["kernel"] = np.ones((3, 3, 3, 8), np.float32)
    return folder / "secret.h5"


def secret_file(folder: Path) -> Path:
    (folder / "secret.txt").write_bytes(SECRET)
    return folder / "secret.txt"


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 8), np.float32)
    layout[...] = h5py.VirtualSource(secret_hdf5(folder), "kernel", (3, 3, 3, 8))
    file.create_virtual_dataset(KERNEL, layout)


def never_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset(KERNEL, (10**6, 10**6), np.float32)


def never_written_chunks(file: h5py.File, folder: Path) -> None:
    file.create_dataset(KERNEL, (10**6, 10**6), np.float32, chunks=(64, 64))


def compressed(shape: tuple[int, ...]) -> Spoil:
    return lambda file, _: file.create_dataset(KERNEL, shape, np.float32, chunks=True, compression="gzip")


def exploding_chunk(file: h5py.File, folder: Path) -> None:
    made = file.create_dataset(KERNEL, (3, 3, 3, 8), np.float32, chunks=(3, 3, 3, 8), compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(b"\0" * (64 << 20)))


def damaged_chunk(file: h5py.File, folder: Path) -> None:
    made = file.create_dataset(KERNEL, (3, 3, 3, 8), np.float32, chunks=(3, 3, 3, 8), compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), b"no zlib at all")


def huge_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset(KERNEL, (4, 4), np.float32, chunks=(2**14, 2**15), maxshape=(None, None), compression="gzip")


def with_named_type(file: h5py.File, folder: Path) -> None:
    file["model_weights/conv1/type"] = np.dtype(np.float32)
    file.create_dataset(KERNEL, data=np.zeros((3, 3, 3, 8)), dtype=file["model_weights/conv1/type"])
    del file["model_weights/conv1/type"]


def nested(file: h5py.File, folder: Path) -> None:
    file.create_group("model_weights/conv1/" + "/".join(["deeper"] * 40))


def crowded(file: h5py.File, folder: Path) -> None:
    for number in range(scan.MAX_OBJECTS):
        file.create_group(f"model_weights/conv1/{number}")


def set_attribute(path: str, name: str, value: object, **options: object) -> Spoil:
    return lambda file, _: file[path].attrs.create(name, value, **options)


SPOILT: dict[str, tuple[Spoil, str]] = {
    "soft_link": (
        replaced(lambda file, _: file.__setitem__(KERNEL, h5py.SoftLink("/model_weights/conv2/conv2/kernel"))),
        f"'{KERNEL}' is a soft link, which can lead outside the file",
    ),
    "external_link": (
        replaced(lambda file, folder: file.__setitem__(KERNEL, h5py.ExternalLink(secret_hdf5(folder), "kernel"))),
        "'model_weights/conv1/conv1' holds a link to another file",
    ),
    "external_link_outside_the_layers": (
        lambda file, folder: file.__setitem__("optimizer_weights", h5py.ExternalLink(secret_hdf5(folder), "/")),
        "'/' holds a link to another file",
    ),
    "external_data": (  # CVE-2026-1669
        replaced(
            lambda file, folder: file.create_dataset(
                KERNEL, (3, 3, 3, 8), np.float32, external=[(secret_file(folder), 0, len(SECRET))]
            )
        ),
        f"'{KERNEL}' stores its values in another file",
    ),
    "virtual_data": (  # CVE-2026-12480
        replaced(virtual),
        f"'{KERNEL}' is a virtual data set, whose values are in other files",
    ),
    "shape_never_stored": (replaced(never_written), "declares the shape .*, of which the file contains 0"),
    "shape_never_stored_in_chunks": (  # CVE-2026-0897
        replaced(never_written_chunks),
        "declares the shape .*4,000,000,000,000 bytes, of which the file contains 0",
    ),
    "shape_never_stored_compressed": (
        replaced(compressed((10**6, 10**6))),
        "declares 4,[0-9,]* bytes in chunks, more than its file can hold",
    ),
    "chunk_that_explodes": (replaced(exploding_chunk), "decompresses to more than the 864 bytes it declares"),
    "chunk_that_is_damaged": (replaced(damaged_chunk), "is damaged: Error -3 while decompressing"),
    "chunk_larger_than_the_array": (replaced(huge_chunk), "declares 2,147,483,648 bytes in chunks"),
    "filter_of_h5py": (
        replaced(lambda file, _: file.create_dataset(KERNEL, data=np.zeros((3, 3, 3, 8)), compression="lzf")),
        "a filter other than gzip",
    ),
    "filter_twice": (
        replaced(lambda file, _: file.create_dataset(KERNEL, data=np.zeros((3, 3, 3, 8)), fletcher32=True)),
        "a filter other than gzip",
    ),
    "references": (
        replaced(lambda file, _: file.create_dataset(KERNEL, data=[file.ref], dtype=h5py.ref_dtype)),
        "holds references, not plain numbers",
    ),
    "references_to_regions": (
        replaced(lambda file, _: file.create_dataset(KERNEL, (1,), h5py.regionref_dtype)),
        "holds references, not plain numbers",
    ),
    "varying_length": (
        replaced(lambda file, _: file.create_dataset(KERNEL, (3,), h5py.vlen_dtype(np.float32))),
        "holds variable-length values",
    ),
    "records": (
        replaced(lambda file, _: file.create_dataset(KERNEL, (3,), np.dtype([("a", "f4"), ("b", "f4")]))),
        "holds compound values",
    ),
    "strings": (replaced(lambda file, _: file.create_dataset(KERNEL, data=np.bytes_(b"text"))), "holds strings"),
    "raw_bytes": (
        replaced(lambda file, _: file.create_dataset(KERNEL, (3,), np.dtype("V9"))),
        "holds values of 9 bytes each",
    ),
    "type_of_its_own": (replaced(with_named_type), "holds a named type"),
    "named_type": (
        lambda file, _: file.__setitem__("model_weights/conv1/type", np.dtype(np.float32)),
        "'model_weights/conv1/type' is a named type, not an array",
    ),
    "no_shape_at_all": (
        replaced(lambda file, _: file.create_dataset(KERNEL, data=h5py.Empty("f"))),
        "has a shape that no array of weights has",
    ),
    "groups_in_a_cycle": (
        lambda file, _: file.__setitem__("model_weights/conv1/again", file["model_weights"]),
        "'model_weights/conv1/again' is another name of a group",
    ),
    "array_under_two_names": (
        lambda file, _: file.__setitem__("model_weights/conv1/again", file[KERNEL]),
        "another name of a group or array that the file already holds",
    ),
    "too_deep": (nested, "has more than 32 nested groups"),
    "too_many": (crowded, "holds more than 60 groups and arrays"),
    "name_of_the_folder_above": (
        lambda file, _: file.create_group("model_weights/.."),
        r"holds the name b'..', which is not the name of a layer",
    ),
    "name_of_two_lines": (lambda file, _: file.create_group("a\nb"), "which is not the name of a layer"),
    "name_that_is_not_text": (lambda file, _: file.create_group(b"\xff"), "which is not the name of a layer"),
    "name_too_long": (lambda file, _: file.create_group("a" * 2000), "which is not the name of a layer"),
    "weight_of_another_layer": (
        set_attribute("model_weights/conv1", "weight_names", [b"../conv2/conv2/kernel", b"conv1/bias"]),
        "is not the name of a weight",
    ),
    "weight_from_the_root": (
        set_attribute("model_weights/conv1", "weight_names", [b"/model_weights/conv2/conv2/kernel"]),
        "is not the name of a weight",
    ),
    "weight_with_a_zero_byte": (
        set_attribute("model_weights/conv1", "weight_names", np.array([b"conv1\0kernel", b"conv1/bias"], "S12")),
        "is not the name of a weight",
    ),
    "weight_named_twice": (
        set_attribute("model_weights/conv1", "weight_names", [b"conv1/bias"] * 2),
        "contains a name twice",
    ),
    "weight_that_is_not_there": (
        set_attribute("model_weights/conv1", "weight_names", [b"conv1/missing", b"conv1/bias"]),
        "names the array .*missing', but holds none there",
    ),
    "names_that_are_numbers": (
        set_attribute("model_weights", "layer_names", [1, 2]),
        "it holds numbers where names should be, in 'layer_names'",
    ),
    "layer_that_is_not_there": (
        set_attribute("model_weights", "layer_names", [b"conv1", b"missing"]),
        "it holds '.*', which belongs to none of its layers",
    ),
    "attribute_of_references": (
        lambda file, _: file.attrs.create("reference", file.ref, dtype=h5py.ref_dtype),
        "its attribute 'reference' holds references",
    ),
    "attribute_of_records": (
        lambda file, _: file.attrs.create("record", np.zeros(2, [("a", "f4")])),
        "holds compound values",
    ),
    "long_text": (set_attribute("/", "text", "a" * (17 << 20)), "its attribute 'text' is a string of 17,825,792 bytes"),
    "array_without_a_layer": (
        lambda file, _: file.create_dataset("model_weights/conv1/conv1/more", data=np.zeros(3)),
        "it holds 'model_weights/conv1/conv1/more', which belongs to none of its layers",
    ),
    "group_outside_the_layers": (
        lambda file, _: file.create_group("payload"),
        "it holds 'payload', which belongs to none of its layers",
    ),
    "layer_that_is_not_listed": (
        lambda file, _: file.create_group("model_weights/payload"),
        "it holds 'payload', which belongs to none of its layers",
    ),
    "array_where_a_layer_should_be": (
        replaced(lambda file, _: file.create_dataset("model_weights/conv1", data=1.0), "model_weights/conv1"),
        "names the layer 'conv1', but holds none",
    ),
    "other_shape": (
        replaced(lambda file, _: file.create_dataset(KERNEL, data=np.zeros((3, 3, 3, 16), np.float32))),
        r"layer 'conv1' needs \[\(3, 3, 3, 8\), \(8,\)\], the file has \[\(3, 3, 3, 16\)",
    ),
}


@pytest.mark.parametrize("hole", SPOILT)
def test_a_hostile_file_is_refused_with_the_reason(
    hole: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: Within
) -> None:
    monkeypatch.setattr(scan, "MAX_OBJECTS", 60)
    spoil, reason = SPOILT[hole]
    with h5py.File(model_file, "r+") as file:
        spoil(file, tmp_path)
    with within(16e6):
        with pytest.raises(ModelFileError, match=reason) as refused:
            load_model(model_file)
        with pytest.raises(ModelFileError, match=reason):
            initialize_network(SPEC, Network(), Classification(), 3, str(model_file))
    assert str(refused.value).startswith(str(model_file))


def test_a_string_that_thousands_of_names_share_is_not_read(model_file: Path, within: Within) -> None:
    count, text = 3000, "b" * 1_000_000
    with h5py.File(model_file, "w") as file:
        file.attrs["text"] = text
        file.attrs["layer_names"] = [f"layer{number:04}" for number in range(count)]
    content = model_file.read_bytes()
    at = content.index(struct.pack("<IQ", len(text), content.index(b"GCOL")))
    pointer = content[at : at + 16]
    heaps = [offset for offset in range(0, len(content), 8) if content.startswith(b"GCOL", offset)]
    pointers = [content.find(struct.pack("<IQ", len("layer0000"), heap)) for heap in heaps]
    first = min(offset for offset in pointers if offset >= 0)
    model_file.write_bytes(content[:first] + pointer * count + content[first + 16 * count :])
    reason = "it holds a string of 1,000,000 bytes where the maximum is 1,024"
    with within(16e6), pytest.raises(ModelFileError, match=reason):
        initialize_network(SPEC, Network(), Classification(), 3, str(model_file))


@pytest.mark.parametrize("length", [0, 7, 8, 100, 2000, 20_000])
def test_a_truncated_file_is_damaged(model_file: Path, length: int) -> None:
    model_file.write_bytes(model_file.read_bytes()[:length])
    with pytest.raises(ModelFileError, match="is damaged"):
        load_model(model_file)


def test_bytes_before_the_signature_are_refused(model_file: Path) -> None:
    model_file.write_bytes(b"#!/bin/sh".ljust(512, b"\0") + model_file.read_bytes())
    with pytest.raises(ModelFileError, match="does not begin with the bytes of HDF5"):
        load_model(model_file)


def test_changed_bytes_never_raise_another_error(model_file: Path) -> None:
    good = model_file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(good)
        for offset in random.integers(0, 12_000, 8):
            content[offset] = random.integers(0, 256)
        model_file.write_bytes(content)
        try:
            initialize_network(SPEC, Network(), Classification(), 3, str(model_file))
        except ModelFileError:
            refused += 1
    assert refused > 10


def test_arrays_compressed_with_gzip_are_read(model_file: Path) -> None:
    values = np.random.default_rng(1).normal(0, 1, (3, 3, 3, 8)).astype(np.float32)
    with h5py.File(model_file, "r+") as file:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=values, chunks=(2, 2, 3, 8), compression="gzip", shuffle=True)
    kernel = load_model(model_file).model.get_layer("conv1").kernel.numpy()
    np.testing.assert_array_equal(kernel, values)


def test_bfloat16_arrays_are_read(model_file: Path) -> None:
    values = np.random.default_rng(1).normal(0, 1, (3, 3, 3, 8)).astype(np.float32)
    upper_halves = values.view(np.uint32) >> 16
    with h5py.File(model_file, "r+") as file:
        del file[KERNEL]
        file[KERNEL] = upper_halves.astype(np.uint16).view("V2")  # as Keras stores them
    kernel = load_model(model_file).model.get_layer("conv1").kernel.numpy()
    np.testing.assert_array_equal(kernel, (upper_halves << 16).astype(np.uint32).view(np.float32))
