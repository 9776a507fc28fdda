"""The index of each file, its labels and the byte ranges of its images: built once, then cached on disk."""

from __future__ import annotations

import json
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from absl import logging

from model_trainer.errors import DataError
from model_trainer.sources.tfrecords.cache import load_cached, save_cached
from model_trainer.sources.tfrecords.features import Features, Parsed, make_parser
from model_trainer.sources.tfrecords.records import read_object_records, read_records, version_of
from model_trainer.storage.cached import is_in_store

__all__ = ["FileIndex", "Records", "index_files"]

Records = Callable[[str], Iterator[tuple[int, bytes]]]  # from a file's path to (start, data) of each record
Parser = Callable[[bytes, str], Parsed]

_FORMAT = 1  # of the cache; increase it to rebuild all indexes
_MAX_FILES_AT_ONCE = 8  # remote files have a high latency; one alone would leave the connection idle
_SECONDS_BETWEEN_LINES = 10


@dataclass(frozen=True, eq=False)
class FileIndex:
    """The index of one file.

    Attributes:
        starts, sizes: int64 `(num_records,)`, the byte range of each record's image in the file.
        counts: int32 `(num_records,)`, the number of labels of each record.
        labels: int64 `(sum of counts,)`, as in the file; if classes are given by name, keys of `names`.
        names: names of classes, by label.
        by_name: whether records contain the names of their classes instead of numbers.
        several_at: the index of the first record whose labels can only be tags; -1 if each record has one class.
        contradiction: describes a label that has two names; empty if none has.
        etag: the ETag of a file in an object store.
        crcs: uint32 `(num_records,)`, the CRC-32 of each image, of a file in an object store; otherwise None.
    """

    starts: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    names: dict[int, str]
    by_name: bool = False
    several_at: int = -1
    contradiction: str = ""
    etag: str = ""
    crcs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Converts the index to arrays, for `from_arrays`."""
        rest = [list(self.names.items()), self.by_name, self.several_at, self.contradiction]
        return {
            "starts": self.starts,
            "sizes": self.sizes,
            "counts": self.counts,
            "labels": self.labels,
            "rest": np.frombuffer(json.dumps(rest).encode(), np.uint8),
            **({} if self.crcs is None else {"crcs": self.crcs}),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Restores an index from the arrays of `to_arrays`."""
        names, *rest = json.loads(arrays["rest"].tobytes())
        columns = arrays["starts"], arrays["sizes"], arrays["counts"], arrays["labels"]
        return replace(cls(*columns, dict(names), *rest), crcs=arrays.get("crcs"))


def index_files(paths: Sequence[str], features: Features, records: Records = read_records) -> list[FileIndex]:
    """The index of each file; files that have not changed since they were last indexed are not read.

    Memory: 28 bytes for each record with one label.

    Args:
        paths: of the files.
        features: names of the features.
        records: reads the records of a local file.

    Raises:
        DataError: a file is missing or damaged, or a record lacks a feature.
    """
    progress = _Progress(len(paths))
    pool = ThreadPoolExecutor(min(_MAX_FILES_AT_ONCE, len(paths)))
    try:
        return list(pool.map(lambda path: _index_file(path, features, records, progress), paths))
    finally:
        progress.stopped = True  # stops the other threads after an error or Ctrl-C
        pool.shutdown(cancel_futures=True)


def _index_file(path: str, features: Features, records: Records, progress: _Progress) -> FileIndex:
    version = version_of(path)
    stamp = (version.size, version.changed_ns)
    in_store = is_in_store(path)
    key = json.dumps([_FORMAT, features.to_dict(), *filter(None, [version.etag, in_store and "crcs"])])
    cached = load_cached(path, key, stamp)
    if cached is not None:
        progress.file_done()
        return replace(FileIndex.from_arrays(cached), etag=version.etag)

    def index(located_records: Iterator[tuple[int, bytes]]) -> FileIndex:
        return _index_records(path, located_records, make_parser(features), in_store, progress)

    file_index = read_object_records(path, version, index) if in_store else index(records(path))
    save_cached(path, key, stamp, file_index.to_arrays())
    progress.file_done()
    return replace(file_index, etag=version.etag)


def _index_records(
    path: str, located_records: Iterator[tuple[int, bytes]], parse: Parser, with_crcs: bool, progress: _Progress
) -> FileIndex:
    starts, sizes, crcs, labels = array("q"), array("q"), array("I"), _Labels()
    for number, (start, record) in enumerate(located_records):
        parsed = parse(record, f"{path}#{number}")
        starts.append(start + _position(parsed.image, record))
        sizes.append(len(parsed.image))
        if with_crcs:
            crcs.append(zlib.crc32(parsed.image))
        labels.add(parsed, path, number)
        progress.record_done()
        if progress.stopped:
            raise CancelledError
    file_index = labels.index(starts, sizes)
    return replace(file_index, crcs=np.array(crcs, np.uint32)) if with_crcs else file_index


def _position(image: bytes, record: bytes) -> int:
    """The position of the bytes of `image`, which `record` contains."""
    # `find` preprocesses its whole argument, so only the first bytes of the image are searched for.
    prefix = image[:64]
    position = record.find(prefix)
    while not record.startswith(image, position):
        position = record.find(prefix, position + 1)
    return position


class _Labels:
    """Collects the labels of a file, record by record."""

    def __init__(self) -> None:
        self.counts, self.labels = array("i"), array("q")
        self.names: dict[int, str] = {}
        self.numbers: dict[bytes, int] = {}
        self.by_name: bool | None = None
        self.several_at = -1
        self.contradiction = ""

    def add(self, parsed: Parsed, path: str, number: int) -> None:
        labels: list[Any] = list(dict.fromkeys(parsed.labels))
        if labels:
            by_name = isinstance(labels[0], bytes)
            if self.by_name not in (None, by_name):
                raise DataError(
                    f"{path}#{number}: its class is {'text' if by_name else 'a number'}, unlike those of the records "
                    "before it."
                )
            self.by_name = by_name
        if self.by_name:
            labels = [self.numbers.setdefault(label, len(self.numbers)) for label in labels]
        for label, text in zip(parsed.labels, parsed.texts, strict=False):
            self._name(label, text.decode("utf-8", "replace"))
        self.counts.append(len(labels))
        self.labels.extend(labels)
        if self.several_at < 0 and (parsed.is_set or len(labels) != 1):
            self.several_at = number

    def _name(self, label: Any, name: str) -> None:
        if self.names.setdefault(label, name) != name and not self.contradiction:
            self.contradiction = f"label {label} is called {self.names[label]!r} and {name!r}"

    def index(self, starts: array[int], sizes: array[int]) -> FileIndex:
        written = {number: name.decode("utf-8", "replace") for name, number in self.numbers.items()}
        return FileIndex(
            starts=np.array(starts, np.int64),
            sizes=np.array(sizes, np.int64),
            counts=np.array(self.counts, np.int32),
            labels=np.array(self.labels, np.int64),
            names=written if self.by_name else self.names,
            by_name=bool(self.by_name),
            several_at=self.several_at,
            contradiction=self.contradiction,
        )


class _Progress:
    """Logs the progress of indexing from time to time; called from many threads."""

    def __init__(self, num_files: int) -> None:
        self.num_files = num_files
        self.files = self.records = 0
        self.stopped = False
        self.last_logged = time.monotonic()

    def record_done(self) -> None:
        self.records += 1
        if self.records % 1024 == 0:
            self._log()

    def file_done(self) -> None:
        self.files += 1
        self._log()

    def _log(self) -> None:
        if time.monotonic() - self.last_logged > _SECONDS_BETWEEN_LINES:
            self.last_logged = time.monotonic()
            logging.info(
                "Indexed %d of %d files, %d records; the index is cached.", self.files, self.num_files, self.records
            )
