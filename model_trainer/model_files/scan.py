"""What an HDF5 file holds, looked at before anything is read: a model file is groups, numbers and short texts.

HDF5 can do much more, and each of these has been a hole: links and data sets that lie in other files read files of this
machine (CVE-2026-1669, CVE-2026-12480), shapes that were never stored fill the memory (CVE-2026-0897), filters load
libraries. No Keras writes any of it, so a file with one of them is refused as a whole.

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
from model_trainer.model_files.structure import MAX_NAME_LENGTH, MAX_OBJECTS, Content, check_skeleton, root_address

__all__ = ["EXPANSION", "Scanned", "StoredArray", "scan_hdf5"]

MAX_DEPTH = 32  # groups in groups
MAX_RANK = 8
EXPANSION = 8  # times that compressed arrays may be larger than the file; trained weights hardly shrink at all

_FILTERS = {
    (),
    (h5z.FILTER_DEFLATE,),
    (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE),
}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet.

    Attributes:
        dataset: where it lies.
        shape: as declared; its bytes are there.
    """

    dataset: h5py.Dataset
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its numbers; bfloat16, which HDF5 does not know and Keras stores as 2 raw bytes, becomes float32."""
        values = np.asarray(self.dataset)
        if values.dtype.kind != "V":
            return values
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Scanned:
    """What a file holds.

    Attributes:
        arrays: by full name, such as `model_weights/conv1/conv1/kernel`.
        groups: the names in each group, by its full name; "" is the root.
        attributes: of each group, by its full name.
    """

    arrays: dict[str, StoredArray]
    groups: dict[str, list[str]]
    attributes: dict[str, dict[str, Attribute]]


def scan_hdf5(file: h5py.File, content: Content) -> Scanned:
    """Everything that the file holds.

    Args:
        file: just opened.
        content: its bytes; arrays that would need more than they can hold are refused.

    Raises:
        ModelFileError: it holds what no Keras writes; names the first such thing, and what is wrong with it.
    """
    scanned = Scanned({}, {}, {})
    num_bytes = len(content)
    objects: set[int] = set()  # where the headers of groups and arrays begin
    parts: set[int] = set()
    long_strings = LongStrings(content)
    plain_bytes = packed_bytes = 0

    def meet(name: str, address: int) -> dict[str, Attribute]:
        if address in objects:
            raise ModelFileError(f"{name!r} is another name of a group or array that the file already holds elsewhere")
        objects.add(address)
        check_skeleton(content, address, name, parts)
        try:
            return attributes_at(content, address, long_strings)
        except ModelFileError as error:
            raise ModelFileError(f"{error} (of {name!r})") from error

    scanned.attributes[""] = meet("/", root_address(content))
    todo: list[tuple[str, h5g.GroupID]] = [("", h5g.open(file.id, b"/"))]
    while todo:
        parent, group = todo.pop()
        members = scanned.groups.setdefault(parent, [])
        # Asked before the names are listed, which takes memory for each.
        if len(objects) + group.get_num_objs() > MAX_OBJECTS:
            raise ModelFileError(f"it holds more than {MAX_OBJECTS:,} groups and arrays; no network has as many")
        for link in group:
            name = _name(parent, link)
            attributes = meet(name, _address(name, group, link))
            members.append(name.rpartition("/")[2])
            opened = h5o.open(group, link)
            if isinstance(opened, h5g.GroupID):
                scanned.attributes[name] = attributes
                todo.append((name, opened))
                continue
            if not isinstance(opened, h5d.DatasetID):
                raise ModelFileError(f"{name!r} is a type of its own, not an array")
            shape, needed, is_packed = _check_array(name, opened, num_bytes)
            plain_bytes += 0 if is_packed else needed
            packed_bytes += needed if is_packed else 0
            if plain_bytes > num_bytes or packed_bytes > EXPANSION * num_bytes:
                raise ModelFileError(
                    f"it declares more numbers than its {num_bytes:,} bytes can hold, at the latest with {name!r}"
                )
            scanned.arrays[name] = StoredArray(h5py.Dataset(opened), shape)
    return scanned


def _name(parent: str, link: bytes) -> str:
    try:
        own = link.decode()
    except UnicodeDecodeError:
        own = ""
    if not 0 < len(link) <= MAX_NAME_LENGTH or own in ("", ".", "..") or not own.isprintable():
        raise ModelFileError(f"it holds the name {link[:40]!r}, which is no name of a layer or an array")
    name = f"{parent}/{own}".lstrip("/")
    if name.count("/") >= MAX_DEPTH or len(name) > MAX_NAME_LENGTH:
        raise ModelFileError(f"it nests more than {MAX_DEPTH} groups, or long names, at {name[:60]!r}...")
    return name


def _address(name: str, group: h5g.GroupID, link: bytes) -> int:
    info = group.links.get_info(link)
    if info.type != h5l.TYPE_HARD:
        raise ModelFileError(f"{name!r} is a soft link, by which a file reads what is not its own")
    return int(info.u)


def _check_array(name: str, opened: h5d.DatasetID, num_bytes: int) -> tuple[tuple[int, ...], int, bool]:
    """Its shape, the bytes that reading it takes, and whether it is compressed."""
    kind, plan = opened.get_type(), opened.get_create_plist()
    size = kind.get_size()
    # A bool is an enumeration of 1 byte, and bfloat16, which HDF5 does not know, 2 raw bytes.
    if size > 16 or {h5t.ENUM: 1, h5t.OPAQUE: 2}.get(kind.get_class(), size) != size:
        raise ModelFileError(f"{name!r} holds values of {size} bytes each, which are no numbers")
    space = opened.get_space()
    if space.get_simple_extent_type() not in (h5s.SCALAR, h5s.SIMPLE) or len(space.shape) > MAX_RANK:
        raise ModelFileError(f"{name!r} has no shape that an array of weights can have")
    shape = tuple(int(side) for side in space.shape)
    declared = math.prod(shape) * size
    filters = tuple(plan.get_filter(index)[0] for index in range(plan.get_nfilters()))
    if filters not in _FILTERS:
        raise ModelFileError(f"{name!r} went through a filter other than gzip, which may be code of another's")
    if filters:
        return shape, _check_chunks(name, opened, shape, plan.get_chunk(), size, num_bytes), True
    stored = opened.get_storage_size()
    if declared > stored:
        raise ModelFileError(
            f"{name!r} declares the shape {shape}, {declared:,} bytes, of which the file holds {stored:,}"
        )
    return shape, stored, False


def _check_chunks(
    name: str, opened: h5d.DatasetID, shape: tuple[int, ...], sides: tuple[int, ...], itemsize: int, num_bytes: int
) -> int:
    """Unpacks each chunk within bounds, as HDF5 itself gives a chunk all the memory it grows to.

    Returns:
        How many bytes all have together.
    """
    size = math.prod(sides) * itemsize
    count = math.prod(-(-length // side) for length, side in zip(shape, sides, strict=True))
    if count * size > EXPANSION * num_bytes:
        raise ModelFileError(f"{name!r} declares {count * size:,} bytes in pieces, more than its file can hold")
    if opened.get_num_chunks() != count:
        raise ModelFileError(f"{name!r} declares {count:,} pieces, of which the file holds {opened.get_num_chunks():,}")
    chunks: list[h5d.StoreInfo] = []
    opened.chunk_iter(chunks.append)
    for chunk in chunks:
        if chunk.size > num_bytes:
            raise ModelFileError(f"{name!r} declares a piece of {chunk.size:,} bytes in a file of {num_bytes:,}")
        mask, packed = opened.read_direct_chunk(chunk.chunk_offset)
        if mask:
            raise ModelFileError(f"{name!r} is compressed in one piece and not in another, as no Keras writes it")
        unpacker = zlib.decompressobj()
        try:
            unpacked = len(unpacker.decompress(packed, size + 1))
        except zlib.error as error:
            raise ModelFileError(f"{name!r} is damaged: {error}") from error
        if unpacked != size:
            more = "more than" if unpacked > size else f"{unpacked:,} bytes instead of"
            raise ModelFileError(f"{name!r} unpacks to {more} the {size:,} bytes it declares")
    return count * size
