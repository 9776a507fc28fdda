from __future__ import annotations

import errno
import hashlib
import json
import logging as python_logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_trainer.errors import ConfigError, StorageError
from model_trainer.storage import local
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint, checkpoints_in, read_newest, write_checkpoint
from model_trainer.training.checkpoints.values import pack, unpack

RANDOM = np.random.default_rng(0)


def checkpoint(epoch: int, position: int = 0) -> Checkpoint:
    arrays = {
        "network/0/kernel": RANDOM.normal(size=(3, 4)).astype(np.float32),
        "optimizer/0/iteration": np.array(7, np.int64),
        "empty": np.zeros((0, 2), np.float32),
        "across": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    }
    return Checkpoint(epoch, position, {"history": [{"loss": 0.1 + 0.2, "val_loss": float("nan")}]}, arrays)


def test_a_checkpoint_is_restored_bit_for_bit(tmp_path: Path) -> None:
    written = checkpoint(3, 17)
    write_checkpoint(tmp_path, written)
    read = read_newest(tmp_path)
    assert read is not None
    assert (read.epoch, read.position) == (3, 17)
    assert read.state["history"][0]["loss"] == 0.1 + 0.2
    assert np.isnan(read.state["history"][0]["val_loss"])
    assert read.arrays.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        assert read.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(read.arrays[name], array)


DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i8"),
    *("float16", "bfloat16", "float8_e4m3fn", "float32", "float64", ">f4", "complex64", "complex128"),
    *("U3", "S3", "datetime64[s]"),
]


def same_bits(array: np.ndarray, expected: np.ndarray) -> bool:
    return (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@settings(max_examples=25)
@given(st.binary(min_size=16, max_size=64), st.sampled_from(["C", "F", "strided", "0-d", "empty"]))
def test_every_dtype_and_layout_is_restored_bit_for_bit(content: bytes, layout: str) -> None:
    """Any bytes: NaNs with a payload, -0.0, and the smallest numbers."""
    arrays = {}
    for dtype in map(np.dtype, DTYPES):
        flat = np.frombuffer((content * dtype.itemsize)[: 12 * dtype.itemsize], dtype)
        views = {"C": flat, "F": flat.reshape(3, 4).T, "strided": flat[::-2], "0-d": flat[0, ...], "empty": flat[:0]}
        arrays[str(dtype)] = views[layout]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), Checkpoint(0, 0, {}, arrays))
        read = read_newest(Path(folder))
    assert read is not None
    assert [name for name, array in arrays.items() if not same_bits(read.arrays[name], array)] == []


def test_negative_zero_and_the_payload_of_nan_are_restored(tmp_path: Path) -> None:
    bits = np.array([0x80000000, 0x7FC00001, 0xFFC12345, 0x00000001], np.uint32)
    write_checkpoint(tmp_path, Checkpoint(0, 0, {}, {"x": bits.view(np.float32)}))
    read = read_newest(tmp_path)
    assert read is not None
    assert read.arrays["x"].view(np.uint32).tolist() == bits.tolist()


@pytest.mark.parametrize(
    "listed",
    [[["x", "float32", [999]]], [["x", "float33", [1]]], [["x", "object", [1]]], [["x", "float32", "1"]], "x", None],
)
def test_a_checkpoint_with_matching_hashes_but_a_wrong_list_of_arrays_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, listed: object
) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    target = write_checkpoint(tmp_path, checkpoint(2))
    state = json.dumps({"epoch": 2, "position": 0, "arrays": listed}).encode()
    (target / "state.json").write_bytes(state)
    hashes = json.loads((target / "hashes.json").read_text())
    (target / "hashes.json").write_text(json.dumps({**hashes, "state.json": hashlib.sha256(state).hexdigest()}))
    read = read_newest(tmp_path)
    assert read is not None
    assert read.epoch == 1
    assert "epoch-00002-step-0000000 is damaged (state.json does not describe arrays.bin)" in caplog.text


def test_the_last_two_checkpoints_are_kept_in_the_order_of_the_run(tmp_path: Path) -> None:
    for epoch, position in ((0, 9), (0, 10), (1, 0), (2, 0)):
        write_checkpoint(tmp_path, checkpoint(epoch, position))
    assert [path.name for path in checkpoints_in(tmp_path)] == ["epoch-00001-step-0000000", "epoch-00002-step-0000000"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["arrays.bin", "state.json", "hashes.json"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_checkpoint_is_logged_and_the_one_before_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    damage(write_checkpoint(tmp_path, checkpoint(2)) / name)
    with caplog.at_level(python_logging.WARNING):
        read = read_newest(tmp_path)
    assert read is not None
    assert read.epoch == 1
    assert "epoch-00002-step-0000000 is damaged" in caplog.text


def test_without_an_intact_checkpoint_none_is_read(tmp_path: Path) -> None:
    truncate(write_checkpoint(tmp_path, checkpoint(1)) / "arrays.bin")
    assert read_newest(tmp_path) is None
    assert read_newest(tmp_path / "none") is None


def full(path: Path, chunks: object) -> None:
    path.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    calls: list[Path] = []
    whole = local.write_synced

    def write(path: Path, chunks: object) -> None:
        calls.append(path)
        (full if len(calls) == at else whole)(path, chunks)

    monkeypatch.setattr(local, "write_synced", write)
    with pytest.raises(StorageError, match="epoch-00002-step-0000000 could not be written: No space left on device"):
        write_checkpoint(tmp_path, checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00001-step-0000000"]


def test_saving_to_a_full_disk_logs_the_last_good_checkpoint_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    monkeypatch.setattr(local, "write_synced", full)
    with Saver(tmp_path) as saver, caplog.at_level(python_logging.WARNING):
        saver.save(partial(checkpoint, 2))
    assert "No space left on device; 152 bytes are needed, " in caplog.text
    assert "--resume would continue from the last good one, epoch-00001-step-0000000." in caplog.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_the_state_of_a_callback_is_restored(value: object) -> None:
    arrays: dict[str, np.ndarray] = {}
    assert unpack(pack(value, "callbacks/0", arrays), arrays) == value


def test_arrays_in_the_state_of_a_callback_are_restored() -> None:
    arrays: dict[str, np.ndarray] = {}
    weights = [RANDOM.normal(size=(2, 3)), np.float32(4)]
    back = unpack(pack({"best": weights}, "callbacks/0", arrays), arrays)
    for array, expected in zip(back["best"], weights, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("array", "kind"),
    [(np.array([None]), "Python objects"), (np.zeros(1, [("a", "f4"), ("b", "i4")]), "records")],
)
def test_arrays_that_a_checkpoint_cannot_hold_are_refused(array: np.ndarray, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"callbacks/0/mine holds an array of {kind}"):
        pack({"mine": array}, "callbacks/0", {})


def test_objects_that_a_checkpoint_cannot_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"callbacks/0/model is <object"):
        pack({"model": object()}, "callbacks/0", {})
