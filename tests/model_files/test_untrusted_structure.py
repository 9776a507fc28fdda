"""HDF5 files of some KB that run forever, or fill the memory, inside HDF5: each is refused before HDF5 walks it.

None of them can be written with h5py; bytes are changed where the format says. With HDF5 1.14.6 the first three and the
tree of chunks never ended, inside C code, where Ctrl-C does not reach.

| hole | test |
| --- | --- |
| a tree of names with a cycle or repeated nodes | `test_an_endless_structure_is_refused[...]` |
| a heap whose free list is a cycle | `[free_list_in_a_cycle]` |
| a name of a megabyte, for thousands of entries | `[name_of_a_megabyte]` |
| a header that continues in itself | `[header_that_continues_in_itself]` |
| a tree of chunks with repeated nodes | `test_an_hdf5_chunk_tree_with_repeated_nodes_is_refused` |
| more chunks than the shape has | `test_more_chunks_than_the_shape_has_are_refused` |
| newer formats of HDF5, which are not walked here | `test_the_newer_file_format_of_hdf5_is_refused` |

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from model_trainer import Classification, ModelSpec, Network
from model_trainer.errors import ModelFileError
from model_trainer.model_files.weights import initialize_network

SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
NOWHERE = 2**64 - 1

Within = Callable[[float], contextlib.AbstractContextManager[None]]


def end_of(content: bytearray) -> int:
    """Pads the content to a multiple of 8 bytes; returns the offset of its end."""
    content += bytes(-len(content) % 8)
    return len(content)


def write_end(content: bytearray) -> None:
    struct.pack_into("<Q", content, 40, len(content))


def root_of(content: bytearray) -> tuple[int, int, int]:
    """The offsets of header, tree and heap of the root group."""
    (header,) = struct.unpack_from("<Q", content, 64)
    return header, *struct.unpack_from("<QQ", content, 80)


def branches_that_meet(content: bytearray) -> None:
    """8 levels of 32 branches each, all to the one node below: 32**8 ways to the leaf."""
    header, tree, heap = root_of(content)
    first, _, last = struct.unpack_from("<QQQ", content, tree + 24)
    below = tree
    for level in range(1, 9):
        node = end_of(content)
        content += b"TREE" + struct.pack("<BBHQQ", 0, level, 32, NOWHERE, NOWHERE)
        content += struct.pack("<QQ", first, below) * 32 + struct.pack("<Q", last)
        below = node
    at = content.index(struct.pack("<QQ", tree, heap), header)
    struct.pack_into("<Q", content, at, below)
    write_end(content)


def neighbor_of_itself(content: bytearray) -> None:
    _, tree, _ = root_of(content)
    struct.pack_into("<QQ", content, tree + 8, tree, tree)


def free_list_in_a_cycle(content: bytearray) -> None:
    _, _, heap = root_of(content)
    _, gap, start = struct.unpack_from("<QQQ", content, heap + 8)
    struct.pack_into("<Q", content, start + gap, gap)


def name_of_a_megabyte(content: bytearray) -> None:
    """A name that all entries of the group could share."""
    _, tree, heap = root_of(content)
    start = end_of(content)
    content += bytes(8) + b"a" * 1_000_000 + bytes(8)
    struct.pack_into("<QQQ", content, heap + 8, len(content) - start, 1, start)
    (leaf,) = struct.unpack_from("<Q", content, tree + 32)
    struct.pack_into("<Q", content, leaf + 8, 8)
    write_end(content)


def header_that_continues_in_itself(content: bytearray) -> None:
    header, tree, heap = root_of(content)
    block = end_of(content)
    content += struct.pack("<HHBxxxQQ", 0x10, 16, 0, block, 24)
    at = content.index(struct.pack("<QQ", tree, heap), header) - 8
    struct.pack_into("<HHBxxxQQ", content, at, 0x10, 16, 0, block, 24)
    write_end(content)


STRUCTURES: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "branches_that_meet": (branches_that_meet, "'/' lists its members in a cycle or twice"),
    "neighbor_of_itself": (neighbor_of_itself, "'/' lists its members in a cycle or twice"),
    "free_list_in_a_cycle": (free_list_in_a_cycle, "'/' lists its members in a cycle or twice"),
    "name_of_a_megabyte": (name_of_a_megabyte, "'/' holds the name b'a+', which is not the name of a layer"),
    "header_that_continues_in_itself": (header_that_continues_in_itself, "is damaged at byte .*, in a header"),
}


def assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        initialize_network(SPEC, Network(), Classification(), 3, str(path))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_endless_structure_is_refused(structure: str, model_file: Path, within: Within) -> None:
    change, reason = STRUCTURES[structure]
    content = bytearray(model_file.read_bytes())
    change(content)
    model_file.write_bytes(content)
    with within(16e6):
        assert_refused(model_file, reason)


def with_chunks(path: Path) -> bytearray:
    """The valid file with one array in two chunks."""
    with h5py.File(path, "r+") as file:
        del file["model_weights/conv1/conv1/kernel"]
        values = np.zeros((3, 3, 3, 8), np.float32)
        file.create_dataset("model_weights/conv1/conv1/kernel", data=values, chunks=(3, 3, 3, 4), compression="gzip")
    return bytearray(path.read_bytes())


def test_an_hdf5_chunk_tree_with_repeated_nodes_is_refused(model_file: Path) -> None:
    content = with_chunks(model_file)
    tree = content.index(b"TREE\x01\x00")
    key = bytes(content[tree + 24 : tree + 24 + 48])
    below = tree
    for level in range(1, 9):
        node = end_of(content)
        content += b"TREE" + struct.pack("<BBHQQ", 1, level, 32, NOWHERE, NOWHERE)
        content += ((key + struct.pack("<Q", below)) * 32 + key).ljust(24 + 64 * 56 + 48, b"\0")  # of 64 at most
        below = node
    struct.pack_into("<Q", content, content.index(b"\x03\x02\x05" + struct.pack("<Q", tree)) + 3, below)
    write_end(content)
    model_file.write_bytes(content)
    assert_refused(model_file, "'model_weights/conv1/conv1/kernel' lists its members in a cycle or twice")


def test_more_chunks_than_the_shape_has_are_refused(model_file: Path) -> None:
    content = with_chunks(model_file)
    layout = content.index(b"\x03\x02\x05" + struct.pack("<Q", content.index(b"TREE\x01\x00")))
    sides = struct.pack("<4Q", 3, 3, 3, 8)
    shape = content.rindex(sides * 2, 0, layout)  # as it is, and as it may grow
    content[shape : shape + 64] = struct.pack("<4Q", 3, 3, 3, 4) * 2
    model_file.write_bytes(content)
    assert_refused(model_file, "declares 1 chunks, of which the file contains 2")


def test_the_newer_file_format_of_hdf5_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "newer.h5", "w", libver="latest") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    assert_refused(tmp_path / "newer.h5", "an HDF5 feature that Keras does not use")
