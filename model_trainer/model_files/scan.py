"""Scans the contents of an HDF5 file before anything is read: a model file is groups, numbers and short strings.

HDF5 can do much more, and each of these has been a vulnerability: links and data sets in other files read files of this
machine (CVE-2026-1669, CVE-2026-12480), shapes that were never stored fill the memory (CVE-2026-0897), filters load
libraries. Keras writes none of it, so a file with any of them is refused as a whole.

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5s, h5t, h5z

from model_trainer.errors import ModelFileError
from model_trainer.model_files.attributes import Attribute, LongStrings, attributes_at
from model_trainer.model_files.structure import MAX_NAME_LENGTH, MAX_OBJECTS, Content, check_structure, root_address

__all__ = ["EXPANSION", "Scanned", "StoredArray", "scan_hdf5"]

MAX_DEPTH = 32  # groups in groups
MAX_RANK = 8
EXPANSION = 8  # compressed arrays may be so many times larger than the file; trained weights hardly compress

_FILTERS = {
    (),
    (h5z.FILTER_DEFLATE,),
    (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE),
}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet.

    Attributes:
        dataset: its HDF5 data set.
        shape: the declared shape; the file contains its values.
    """

    dataset: h5py.Dataset
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Reads the values; bfloat16, which HDF5 lacks and Keras stores as 2 opaque bytes, becomes float32."""
        values = np.asarray(self.dataset)
        if values.dtype.kind != "V":
            return values
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Scanned:
    """The contents of an HDF5 file.

    Attributes:
        arrays: by full name, such as `model_weights/conv1/conv1/kernel`.
        groups: the member names of each group, by its full name; "" is the root.
        attributes: the attributes of each group, by its full name.
    """

    arrays: dict[str, StoredArray]
    groups: dict[str, list[str]]
    attributes: dict[str, dict[str, Attribute]]


def scan_hdf5(file: h5py.File, content: Content) -> Scanned:
    """Lists and checks everything in the file.

    Args:
        file: the open file.
        content: its bytes; arrays that declare more values than these can hold are refused.

    Raises:
        ModelFileError: the file contains something that Keras does not write; names the first such object.
    """
    scanned = Scanned({}, {}, {})
    num_bytes = len(content)
    objects: set[int] = set()  # addresses of the headers of groups and arrays
    visited: set[int] = set()
    long_strings = LongStrings(content)
    plain_bytes = compressed_bytes = 0

    def visit(name: str, address: int) -> dict[str, Attribute]:
        if address in objects:
            raise ModelFileError(f"{name!r} is another name of a group or array that the file already holds elsewhere")
        objects.add(address)
        check_structure(content, address, name, visited)
        try:
            return attributes_at(content, address, long_strings)
        except ModelFileError as error:
            raise ModelFileError(f"{error} (of {name!r})") from error

    scanned.attributes[""] = visit("/", root_address(content))
    todo: list[tuple[str, h5g.GroupID]] = [("", h5g.open(file.id, b"/"))]
    while todo:
        parent, group = todo.pop()
        members = scanned.groups.setdefault(parent, [])
        # Checked before the names are listed, which takes memory for each.
        if len(objects) + group.get_num_objs() > MAX_OBJECTS:
            raise ModelFileError(f"it holds more than {MAX_OBJECTS:,} groups and arrays; no network has as many")
        for link in group:
            name = _name(parent, link)
            attributes = visit(name, _address(name, group, link))
            members.append(name.rpartition("/")[2])
            opened = h5o.open(group, link)
            if isinstance(opened, h5g.GroupID):
                scanned.attributes[name] = attributes
                todo.append((name, opened))
                continue
            if not isinstance(opened, h5d.DatasetID):
                raise ModelFileError(f"{name!r} is a named type, not an array")
            shape, needed, is_compressed = _check_array(name, opened, num_bytes)
            plain_bytes += 0 if is_compressed else needed
            compressed_bytes += needed if is_compressed else 0
            if plain_bytes > num_bytes or compressed_bytes > EXPANSION * num_bytes:
                raise ModelFileError(
                    f"it declares more numbers than its {num_bytes:,} bytes can hold, at the latest with {name!r}"
                )
            scanned.arrays[name] = StoredArray(h5py.Dataset(opened), shape)
    return scanned


def _name(parent: str, link: bytes) -> str:
    try:
        last = link.decode()
    except UnicodeDecodeError:
        last = ""
    if not 0 < len(link) <= MAX_NAME_LENGTH or last in ("", ".", "..") or not last.isprintable():
        raise ModelFileError(f"it holds the name {link[:40]!r}, which is not the name of a layer or an array")
    name = f"{parent}/{last}".lstrip("/")
    if name.count("/") >= MAX_DEPTH or len(name) > MAX_NAME_LENGTH:
        raise ModelFileError(f"it has more than {MAX_DEPTH} nested groups, or long names, at {name[:60]!r}...")
    return name


def _address(name: str, group: h5g.GroupID, link: bytes) -> int:
    info = group.links.get_info(link)
    if info.type != h5l.TYPE_HARD:
        raise ModelFileError(f"{name!r} is a soft link, which can lead outside the file")
    return int(info.u)


def _check_array(name: str, opened: h5d.DatasetID, num_bytes: int) -> tuple[tuple[int, ...], int, bool]:
    """Checks an array; returns its shape, the memory in bytes that reading it takes, and whether it is compressed."""
    kind, plan = opened.get_type(), opened.get_create_plist()
    size = kind.get_size()
    # A bool is an enumeration of 1 byte, and bfloat16, which HDF5 lacks, 2 opaque bytes.
    if size > 16 or {h5t.ENUM: 1, h5t.OPAQUE: 2}.get(kind.get_class(), size) != size:
        raise ModelFileError(f"{name!r} holds values of {size} bytes each, which are not numbers")
    space = opened.get_space()
    if space.get_simple_extent_type() not in (h5s.SCALAR, h5s.SIMPLE) or len(space.shape) > MAX_RANK:
        raise ModelFileError(f"{name!r} has a shape that no array of weights has")
    shape = tuple(int(side) for side in space.shape)
    declared = math.prod(shape) * size
    filters = tuple(plan.get_filter(index)[0] for index in range(plan.get_nfilters()))
    if filters not in _FILTERS:
        raise ModelFileError(f"{name!r} uses a filter other than gzip, which may load a plugin library")
    if filters:
        return shape, _check_chunks(name, opened, shape, plan.get_chunk(), size, num_bytes), True
    stored = opened.get_storage_size()
    if declared > stored:
        raise ModelFileError(
            f"{name!r} declares the shape {shape}, {declared:,} bytes, of which the file contains {stored:,}"
        )
    return shape, stored, False


def _check_chunks(
    name: str, opened: h5d.DatasetID, shape: tuple[int, ...], sides: tuple[int, ...], itemsize: int, num_bytes: int
) -> int:
    """Decompresses each chunk within bounds; the HDF5 library would allocate whatever a chunk expands to.

    Returns:
        The total size of the decompressed chunks in bytes.
    """
    size = math.prod(sides) * itemsize
    count = math.prod(-(-length // side) for length, side in zip(shape, sides, strict=True))
    if count * size > EXPANSION * num_bytes:
        raise ModelFileError(f"{name!r} declares {count * size:,} bytes in chunks, more than its file can hold")
    if opened.get_num_chunks() != count:
        raise ModelFileError(
            f"{name!r} declares {count:,} chunks, of which the file contains {opened.get_num_chunks():,}"
        )
    chunks: list[h5d.StoreInfo] = []
    opened.chunk_iter(chunks.append)
    for chunk in chunks:
        if chunk.size > num_bytes:
            raise ModelFileError(f"{name!r} declares a chunk of {chunk.size:,} bytes in a file of {num_bytes:,}")
        mask, compressed = opened.read_direct_chunk(chunk.chunk_offset)
        if mask:
            raise ModelFileError(f"{name!r} has compressed and uncompressed chunks, which Keras does not write")
        decompressor = zlib.decompressobj()
        try:
            decompressed = len(decompressor.decompress(compressed, size + 1))
        except zlib.error as error:
            raise ModelFileError(f"{name!r} is damaged: {error}") from error
        if decompressed != size:
            more = "more than" if decompressed > size else f"{decompressed:,} bytes instead of"
            raise ModelFileError(f"{name!r} decompresses to {more} the {size:,} bytes it declares")
    return count * size
