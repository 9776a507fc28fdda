"""Makes one folder contain what another contains: compares both, copies what differs, and deletes what is too much."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from model_trainer.errors import ConfigError
from model_trainer.storage import files
from model_trainer.storage.manifest import MANIFEST
from model_trainer.storage.objects.errors import StoreError, UnavailableError
from model_trainer.storage.objects.store import ObjectStore
from model_trainer.storage.objects.urls import SCHEMES, check_url, parse_url
from model_trainer.storage.sync.between import Between
from model_trainer.storage.sync.download import Download
from model_trainer.storage.sync.listing import Entry
from model_trainer.storage.sync.transfer import Stopped, Transfer, Work
from model_trainer.storage.sync.upload import Upload
from model_trainer.storage.sync.workers import Workers
from model_trainer.storage.trouble import is_full, not_written

__all__ = ["JOBS", "Synchronization"]

JOBS = 32  # transfers at once, with which a store on the same machine was fastest
MAX_REFUSALS = 32  # one after the other, until no more are tried


@dataclass
class Synchronization:
    """Makes `target` contain what `source` contains; one of them is in an object store.

    Args:
        source, target: folders: paths or URLs.
        delete: whether files of `target` are deleted that `source` does not have.
        dry_run: whether nothing is copied or deleted, only listed in `changes`.
        checksum: whether files of the same size are compared by their checksums even if their times match.
        jobs: number of transfers at once.
        on_progress: called a few times per second, with this object.

    Attributes:
        is_listed: whether both folders have been listed, so that the totals are known.
        num_files, num_bytes: to be copied, as far as is known.
        num_moved: bytes that were transferred.
        num_copied, num_copied_bytes: files that were copied, or would be.
        num_equal: files that needed no copying.
        num_deleted: files and empty folders that were deleted, or would be.
        changes: with `dry_run`, "copy NAME" and "delete NAME".
        failures: names, and why they were not copied.
        has_kept: whether nothing was deleted because of the failures.
    """

    source: str
    target: str
    delete: bool = False
    dry_run: bool = False
    checksum: bool = False
    jobs: int = JOBS
    on_progress: Callable[[Synchronization], None] = lambda _: None

    is_listed: bool = False
    num_files: int = 0
    num_bytes: int = 0
    num_moved: int = 0
    num_copied: int = 0
    num_copied_bytes: int = 0
    num_equal: int = 0
    num_deleted: int = 0
    changes: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    has_kept: bool = False

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _refusals: int = 0
    _end: BaseException | None = None

    def run(self) -> None:
        """Synchronizes; an error of single files is listed in `failures`.

        Raises:
            ConfigError: a folder is missing or unsuitable.
            StorageError: the store refuses every request or does not answer, or the disk is full.
            KeyboardInterrupt: Ctrl-C was pressed; what has been copied is complete.
        """
        transfer = _transfer(self.source, self.target)
        workers = Workers(self.jobs, lambda: self.on_progress(self))
        work = Work(workers.stop, self._moved, workers.assist)
        try:
            surplus, manifests = self._submit_all(transfer, workers, work)
            self.is_listed = True
            workers.wait()
            if not self.failures:
                for job in manifests:
                    workers.submit(job)
                workers.wait()
        except BaseException:
            workers.stop.set()
            raise
        finally:
            workers.close()
        if self._end is not None:
            raise self._end
        self.on_progress(self)
        if self.delete and surplus:
            self._delete(transfer, surplus)
        if not self.dry_run and not self.failures:
            transfer.clear()
        self.changes.sort()

    def _submit_all(
        self, transfer: Transfer, workers: Workers, work: Work
    ) -> tuple[list[Entry], list[Callable[[], None]]]:
        """Lists both folders, and submits what is to be compared or copied.

        Returns:
            What only the target has, and the copies of the manifests of runs, which are for the end: a run with a
            manifest counts as complete.
        """
        manifests: list[Callable[[], None]] = []
        existing = {entry.name: entry for entry in transfer.targets(lambda name, reason: None)}
        num_sources = 0
        for entry in transfer.sources(self._failed):
            num_sources += 1
            same = existing.pop(entry.name, None)
            if same is not None and same.size == entry.size:
                if entry.is_folder:
                    continue
                if not self.checksum and transfer.is_current(entry, same):
                    self.num_equal += 1
                    continue
            else:
                same = None
            if not entry.is_folder:
                with self._lock:
                    self.num_files += 1
                    self.num_bytes += entry.size
            job = functools.partial(self._attempt, transfer, entry, same, work)
            if entry.name.rpartition("/")[2] == MANIFEST:
                manifests.append(job)
            else:
                workers.submit(job)
            if workers.stop.is_set():
                break
        if not num_sources and not files.is_folder(self.source):
            raise ConfigError(f"There is no folder {self.source}.")
        if not num_sources and self.delete and existing:
            raise ConfigError(
                f"{self.source} is empty, and --delete would delete all {len(existing):,} files of {self.target}. "
                "Check the first path; without --delete nothing is deleted."
            )
        return list(existing.values()), manifests

    def _attempt(self, transfer: Transfer, entry: Entry, same: Entry | None, work: Work) -> None:
        """Copies a file unless `same`, which the target has, has its content."""
        try:
            if same is not None and transfer.has_same_content(entry, same, work):
                if not self.dry_run:
                    transfer.keep(entry)
                with self._lock:
                    self.num_equal += 1
                    self.num_files -= 1
                    self.num_bytes -= entry.size
                return
            if not self.dry_run:
                transfer.copy(entry, work)
            self._copied(entry)
        except Stopped:
            return
        except UnavailableError as error:
            self._stop(error, work)
        except StoreError as error:
            self._failed(entry.name, error.strerror or str(error))
            with self._lock:
                self._refusals += 1
            if self._refusals >= MAX_REFUSALS:
                self._stop(error, work)
        except OSError as error:
            if is_full(error) or error.errno == errno.EROFS:
                self._stop(not_written(os.path.join(self.target, entry.name), error, entry.size), work)
            else:
                self._failed(entry.name, error.strerror or str(error))
        except BaseException as error:  # noqa: BLE001 - a panic of obstore is no Exception; `run` raises it
            self._stop(error, work)

    def _delete(self, transfer: Transfer, surplus: list[Entry]) -> None:
        if self.failures:
            self.has_kept = True
            return
        for start in range(0, len(surplus), transfer.deleted_at_once):
            entries = surplus[start : start + transfer.deleted_at_once]
            try:
                if self.dry_run:
                    self.changes += [f"delete {entry.name}" for entry in entries]
                else:
                    transfer.delete(entries)
            except (StoreError, UnavailableError):
                raise
            except OSError as error:
                self._failed(entries[0].name, error.strerror or str(error))
            else:
                self.num_deleted += len(entries)

    def _copied(self, entry: Entry) -> None:
        with self._lock:
            self._refusals = 0
            if self.dry_run:
                self.changes.append(f"copy {entry.name}{'/' if entry.is_folder else ''}")
            if not entry.is_folder:
                self.num_copied += 1
                self.num_copied_bytes += entry.size

    def _moved(self, num_bytes: int) -> None:
        with self._lock:
            self.num_moved += num_bytes

    def _failed(self, name: str, reason: str) -> None:
        with self._lock:
            self.failures.append((name, reason))

    def _stop(self, error: BaseException, work: Work) -> None:
        with self._lock:
            self._end = self._end or error
        work.stop.set()


def _transfer(source: str, target: str) -> Transfer:
    """The transfer for two folders.

    Raises:
        ConfigError: they are unsuitable.
    """
    check_url(source)
    check_url(target)
    from_store, to_store = _store_of(source), _store_of(target)
    if from_store is None and to_store is None:
        raise ConfigError(
            f"{source} and {target} are both on this machine. Expected at least one URL of an object store, such as "
            "s3://bucket/folder; cp -r or rsync copies between folders."
        )
    _check_folder(source, is_source=True)
    if to_store is None:
        assert from_store is not None
        _check_folder(target, is_source=False)
        return Download(from_store, source, target)
    if from_store is None:
        return Upload(source, to_store, target)
    one, other = parse_url(source), parse_url(target)
    if one.root == other.root and _contains(one.key, other.key):
        raise ConfigError(f"{source} and {target} are the same folder, or one contains the other.")
    return Between(from_store, source, to_store, target)


def _store_of(path: str) -> ObjectStore | None:
    scheme, separator, _ = path.partition("://")
    if not separator:
        return None
    storage = files.storage_of(path)
    if not isinstance(storage, ObjectStore):
        raise ConfigError(f"{path} has the scheme {scheme!r}. Expected a path, or one of {_schemes(SCHEMES)}.")
    return storage


def _schemes(schemes: Iterable[str]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)


def _check_folder(path: str, is_source: bool) -> None:
    if "://" in path or files.is_folder(path):
        return
    if files.exists(path):
        raise ConfigError(f"{path} is a file; expected a folder.")
    if is_source:
        raise ConfigError(f"There is no folder {path}.")


def _contains(one: str, other: str) -> bool:
    one, other = f"{one}/".lstrip("/"), f"{other}/".lstrip("/")
    return one.startswith(other) or other.startswith(one)
