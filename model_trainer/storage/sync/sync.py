"""Makes one folder contain what another contains: compares both, copies what differs, and deletes the surplus."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from model_trainer.errors import ConfigError
from model_trainer.messages import shown
from model_trainer.storage import cached, files
from model_trainer.storage.manifest import MANIFEST
from model_trainer.storage.objects.errors import StoreError, StoreUnavailableError
from model_trainer.storage.sync.directions import transfer_between
from model_trainer.storage.sync.listing import Entry
from model_trainer.storage.sync.obstacles import Obstacles, parents_of
from model_trainer.storage.sync.transfer import Stopped, Transfer, Work
from model_trainer.storage.sync.workers import Workers
from model_trainer.storage.write_errors import is_full, not_written

__all__ = ["JOBS", "Synchronization"]

JOBS = 32  # transfers at once, with which a store on the same machine was fastest
MAX_REFUSALS = 32  # in a row, after which the synchronization stops


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
    _stop_error: BaseException | None = None
    _obstacles: dict[str, str] = field(default_factory=dict)  # names of what is in the way, by those of entries

    def run(self) -> None:
        """Synchronizes; an error of single files is listed in `failures`.

        Raises:
            ConfigError: a folder is missing or unsuitable.
            StorageError: the store refuses every request or does not answer, or the disk is full.
            KeyboardInterrupt: Ctrl-C was pressed; what has been copied is complete.
        """
        transfer = transfer_between(self.source, self.target)
        try:
            self._run(transfer)
        finally:
            if not self.dry_run:  # a training that follows sees what has been copied
                cached.forget_listings(self.target)

    def _run(self, transfer: Transfer) -> None:
        workers = Workers(self.jobs, lambda: self.on_progress(self))
        work = Work(workers.stop, self._moved, workers.assist)
        try:
            surplus, blocked, manifests = self._submit_all(transfer, workers, work)
            self.is_listed = True
            workers.wait()
            surplus = self._clear_way(transfer, surplus)
            for jobs in (blocked, manifests):
                if not self.failures:
                    for job in jobs:
                        workers.submit(job)
                    workers.wait()
        except BaseException:
            workers.stop.set()
            raise
        finally:
            workers.close()
        if self._stop_error is not None:
            raise self._stop_error
        self.on_progress(self)
        if self.delete and surplus:
            self._delete(transfer, surplus)
        if not self.dry_run and not self.failures:
            transfer.clear()
        self.changes.sort()

    def _submit_all(
        self, transfer: Transfer, workers: Workers, work: Work
    ) -> tuple[list[Entry], list[Callable[[], None]], list[Callable[[], None]]]:
        """Lists both folders, and submits what is to be compared or copied.

        Returns:
            What only the target has, the copies for which something else has to be deleted first, and those of the
            manifests of runs, which come last: a run with a manifest counts as complete.
        """
        blocked: list[Callable[[], None]] = []
        manifests: list[Callable[[], None]] = []
        existing = {entry.key: entry for entry in transfer.targets(lambda name, reason: None)}
        obstacles = Obstacles(existing.values() if transfer.is_tree else ())
        num_sources = 0
        for entry in transfer.sources(self._failed):
            num_sources += 1
            in_target = existing.pop(entry.key, None)
            if transfer.is_tree:
                for parent in parents_of(entry.name):
                    existing.pop(f"{parent}/", None)  # no longer empty
            obstacle = obstacles.of(entry)
            if obstacles.has_folder(entry) and obstacle is None:
                continue
            if obstacle is not None and (not self.delete or obstacles.is_link(obstacle)):
                self._failed(entry.name, obstacles.reason(obstacle))
                continue
            if in_target is not None and in_target.size == entry.size:
                if entry.is_folder:
                    continue
                if not self.checksum and transfer.is_current(entry, in_target):
                    self.num_equal += 1
                    continue
            else:
                in_target = None
            if not entry.is_folder:
                with self._lock:
                    self.num_files += 1
                    self.num_bytes += entry.size
            job = functools.partial(self._attempt, transfer, entry, in_target, work)
            if obstacle is not None:
                self._obstacles[entry.name] = obstacle
            if entry.name.rpartition("/")[2] == MANIFEST:
                manifests.append(job)
            elif obstacle is not None:
                blocked.append(job)
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
        return list(existing.values()), blocked, manifests

    def _clear_way(self, transfer: Transfer, surplus: list[Entry]) -> list[Entry]:
        """Deletes what is in the way of the blocked copies; returns the rest of `surplus`."""
        if not self._obstacles or self._stop_error is not None:
            return surplus
        if self.failures:
            for name, obstacle in self._obstacles.items():
                self._failed(
                    name, f"{shown(obstacle)}, which is in the way, is not deleted until the others are copied"
                )
            return surplus
        obstacles = set(self._obstacles.values())
        in_way: list[Entry] = []
        others: list[Entry] = []
        for entry in surplus:
            is_free = obstacles.isdisjoint((entry.name, *parents_of(entry.name)))
            (others if is_free else in_way).append(entry)
        self._delete(transfer, in_way)
        return others

    def _attempt(self, transfer: Transfer, entry: Entry, in_target: Entry | None, work: Work) -> None:
        """Copies a file, unless `in_target`, the target's file of the same size, has the same content."""
        try:
            if in_target is not None and transfer.has_same_content(entry, in_target, work):
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
        except StoreUnavailableError as error:
            self._stop(error, work)
        except StoreError as error:
            self._failed(entry.name, error.strerror or str(error))
            with self._lock:
                self._refusals += 1
            if self._refusals >= MAX_REFUSALS:
                self._stop(error, work)
        except OSError as error:
            if is_full(error) or error.errno == errno.EROFS:
                self._stop(not_written(os.path.join(self.target, shown(entry.name)), error, entry.size), work)
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
                    self.changes += [f"delete {entry.key}" for entry in entries]
                else:
                    transfer.delete(entries)
            except (StoreError, StoreUnavailableError):
                raise
            except OSError as error:
                self._failed(entries[0].name, error.strerror or str(error))
            else:
                self.num_deleted += len(entries)

    def _copied(self, entry: Entry) -> None:
        with self._lock:
            self._refusals = 0
            if self.dry_run:
                self.changes.append(f"copy {entry.key}")
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
            self._stop_error = self._stop_error or error
        work.stop.set()
