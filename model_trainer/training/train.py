"""`train_model`: trains a run, on one or several machines, and writes its output folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast

import tensorflow as tf
from absl import logging
from rich.console import Console

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.process_group import LOST_CONNECTION_ERRORS, lost_host_message
from model_trainer.errors import DeviceError, HostError
from model_trainer.messages import counted
from model_trainer.model_files.weights import Origin
from model_trainer.network.training_copy import copy_weights
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.storage import files
from model_trainer.storage.folders import only_process
from model_trainer.storage.manifest import write_manifest
from model_trainer.training.best_models import BestModels
from model_trainer.training.checkpoints.broadcast import broadcast_checkpoint
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint, read_newest
from model_trainer.training.devices import out_of_memory_message
from model_trainer.training.epochs import train_epochs
from model_trainer.training.hints import no_learning_hint
from model_trainer.training.history import Row
from model_trainer.training.keras_callbacks import announce_failure, announce_run_end, with_run_end
from model_trainer.training.log import LogFile, plain_messages
from model_trainer.training.non_chief import NonChiefRunFolder, NonChiefSaver
from model_trainer.training.prepare import PreparedRun, join_hosts, prepare
from model_trainer.training.resume import (
    check_changes,
    check_data,
    check_not_continued,
    find_folder,
    for_batch_size,
    is_finished,
    older_choices,
    read_origin,
    steps_done,
)
from model_trainer.training.run_folder import RunFolder, with_resume_hint
from model_trainer.training.same_data import check_same_data
from model_trainer.training.signals import end_on_signals, stop_on_signals

__all__ = ["Result", "end_run", "train_model"]


@dataclass(frozen=True)
class Result:
    """The result of a training run.

    Attributes:
        path: the output folder.
        history: one row of metrics per epoch.
        bad_images: the reasons why images could not be read, by path.
        stopped: the signal that stopped the training early, or the empty string.
        not_saved: the reason why the last checkpoint could not be written, or the empty string.
        was_finished: whether the resumed run was already complete.
        hints: warnings to read before using the models.
        best_epochs: the epoch that each model file holds, counted from 1, by its name, such as "model_max_acc".
        train_examples, val_examples: the data; None without validation data, and for a run that was finished before.
    """

    path: Path
    history: list[Row]
    bad_images: dict[str, str]
    stopped: str = ""
    not_saved: str = ""
    was_finished: bool = False
    hints: tuple[str, ...] = ()
    best_epochs: dict[str, int] = field(default_factory=dict)
    train_examples: Examples | None = field(default=None, repr=False)
    val_examples: Examples | None = field(default=None, repr=False)
    _callbacks: list[Any] = field(default_factory=list, repr=False, compare=False)  # for `end_run`

    def _repr_html_(self) -> str:
        from model_trainer.training.summary import result_html

        return result_html(self)


def end_run(result: Result, metrics: Mapping[str, Any]) -> None:
    """Calls `on_run_end` of the run's callbacks, once, and writes the manifest, after every other file was written."""
    announce_run_end(result._callbacks, result.path, metrics)
    result._callbacks.clear()  # they may hold the network
    if not result.stopped and not result.not_saved:
        write_manifest(result.path, by_any=result.was_finished)


def train_model(
    run: Run,
    resume: bool = False,
    resume_from: str | PurePath | None = None,
    hosts: Hosts | None = None,
    *,
    report_follows: bool = False,
) -> Result:
    """Trains `run` and writes its output folder.

    Args:
        resume: continue the newest run with this name, from its last checkpoint, or from the first step if it has none;
            without such a run start a new one.
        resume_from: continue the run in this output folder.
        hosts: all processes that train the run, each of which calls this; None for a single process. The chief worker
            chooses the folder.
        report_follows: the caller writes more files to the output folder, and then calls `end_run`.

    Raises:
        ModelTrainerError: the run, its data or its devices are wrong, or training diverged; the message has the cure.
    """
    console = Console(stderr=True)
    with (
        plain_messages(f"[host {hosts.index}] " if hosts is not None else ""),
        LogFile() as log_file,
        end_on_signals(),
    ):
        if hosts is not None:
            result = _train_on_hosts(run, resume, resume_from, hosts, console, log_file)
        else:
            result = _train_alone(run, resume, resume_from, console, log_file)
        if not report_follows and (hosts is None or hosts.is_chief):
            end_run(result, {})
        return result


@dataclass(frozen=True)
class _StartingPoint:
    """Where a run starts: the folder that it continues, its newest checkpoint, and the origin of its network.

    Each is None for a new run; without a checkpoint the network is initialized as declared. `choices` are options of an
    older version that started the run, see `older_choices`.
    """

    path: PurePath | None = None
    checkpoint: Checkpoint | None = None
    origin: Origin | None = None
    choices: dict[str, Any] = field(default_factory=dict)

    def is_finished(self, run: Run) -> bool:
        return self.checkpoint is not None and is_finished(self.checkpoint, run)


def _find_starting_point(run: Run, resume: bool, resume_from: str | PurePath | None) -> _StartingPoint:
    path = find_folder(run, resume_from) if resume or resume_from is not None else None
    if path is None:
        if resume:
            logging.info("There is no run named %s in %s to resume; starting a new one.", run.name, run.output_dir)
        return _StartingPoint()
    check_changes(run, path)
    checkpoint = read_newest(path / "checkpoints")
    origin = None if checkpoint is None else read_origin(path, run.spec)
    return _StartingPoint(path, checkpoint, origin, older_choices(run, path))


def _train_alone(
    run: Run, resume: bool, resume_from: str | PurePath | None, console: Console, log_file: LogFile
) -> Result:
    start = _find_starting_point(run, resume, resume_from)
    if start.is_finished(run):
        return _finished_result(start)
    return _train(prepare(run.changed_all(start.choices), origin=start.origin), start, console, log_file)


def _train_on_hosts(
    run: Run, resume: bool, resume_from: str | PurePath | None, hosts: Hosts, console: Console, log_file: LogFile
) -> Result:
    """Trains in one of several processes: the chief broadcasts the starting point, and is the only one that writes."""
    try:
        process_group, chief_start = join_hosts(run, hosts), _StartingPoint()

        def find() -> list[Any]:
            nonlocal chief_start
            chief_start = _find_starting_point(run, resume, resume_from)
            path, origin = chief_start.path, chief_start.origin
            return [
                None if path is None else str(path),
                None if origin is None else [origin.weights, origin.variant, origin.precision],
                chief_start.choices,
            ]

        path, origin, choices = process_group.broadcast_from_chief(find)
        start = _StartingPoint(
            None if path is None else files.as_path(path),
            broadcast_checkpoint(process_group, chief_start.checkpoint),
            None if origin is None else Origin(*origin),
            choices,
        )
        if start.is_finished(run):
            return _finished_result(start)
        prepared = prepare(run.changed_all(start.choices), process_group, start.origin)
        check_same_data(prepared)
        return _train(prepared, start, console if process_group.is_chief else Console(quiet=True), log_file)
    except LOST_CONNECTION_ERRORS as error:
        raise HostError(lost_host_message(hosts, error)) from error


def _train(prepared: PreparedRun, start: _StartingPoint, console: Console, log_file: LogFile) -> Result:
    with contextlib.ExitStack() as lock:
        folder = _open_folder(prepared, start, lock)
        try:
            return _train_in_folder(folder, prepared, start, console, log_file)
        except BaseException:  # also a second Ctrl-C: a tracker's run must not stay open
            announce_failure(prepared.callbacks)
            raise


def _train_in_folder(
    folder: RunFolder, prepared: PreparedRun, start: _StartingPoint, console: Console, log_file: LogFile
) -> Result:
    run, checkpoint, process_group = prepared.run, start.checkpoint, prepared.process_group
    if process_group.is_chief:
        log_file.write_to(folder.path / "logs" / "train.log")
        prepared.bad_images.write_to(folder.path / "bad_images.csv")
    folder.write_options(run, prepared.resolved_settings)
    logging.info("Output: %s", folder.path)
    done = (steps_done(checkpoint), checkpoint.epoch) if checkpoint is not None else (0, 0)
    if checkpoint is not None:
        position = checkpoint.position
        checkpoint = for_batch_size(checkpoint, run, len(prepared.train))
        if position and not checkpoint.position:  # the epoch is restarted
            done = (done[0] - position, done[1])
    saver = Saver(folder.path / "checkpoints") if process_group.is_chief else NonChiefSaver()
    with with_resume_hint(), folder.logs() as logs, saver, stop_on_signals() as stop:
        if start.path is not None:
            logs.truncate(*done)  # metrics that a killed process logged after its checkpoint
        try:
            loop = train_epochs(prepared, folder, logs, console, stop, saver, checkpoint)
        except tf.errors.ResourceExhaustedError as error:
            raise DeviceError(out_of_memory_message(run)) from error
        if loop.final_checkpoint is not None:
            copy_weights(loop.model, prepared.plain.network.model)
            folder.save_model(prepared.plain.network.model, "final_model", loop.thresholds)
            folder.forget_kept_models()
            saver.save(lambda: loop.final_checkpoint)  # last: a run whose model could not be written is not finished
    _log_bad_images(prepared)
    stopped = (stop.reason or "a signal to another host") if loop.final_checkpoint is None else ""
    if stopped and not process_group.is_chief:
        logging.info("Stopped early by %s; the chief host has saved a checkpoint.", stopped)
    return Result(
        path=cast(Path, folder.path),
        history=loop.history,
        bad_images=prepared.bad_images.reasons,
        stopped=stopped,
        not_saved=str(saver.failed) if saver.failed is not None else "",
        hints=() if stopped else _hints(prepared, loop.history),
        best_epochs={name: epoch for name, epoch in loop.best.epochs.items() if epoch},
        train_examples=prepared.train,
        val_examples=prepared.val,
        _callbacks=with_run_end(prepared.callbacks) if process_group.is_chief else [],
    )


def _open_folder(prepared: PreparedRun, start: _StartingPoint, lock: contextlib.ExitStack) -> RunFolder:
    """Returns a new folder, or that of `start`; the chief creates it, and locks it until `lock` is closed."""

    def open_or_make() -> str:
        if start.path is None:
            folder = RunFolder.make(prepared.run, prepared.description)
        else:
            check_data(prepared.resolved_settings, start.path)
            folder = RunFolder.reopen(start.path, prepared.description)
        lock.enter_context(only_process(folder.path / "logs"))
        check_not_continued(folder.path, start.checkpoint)
        return str(folder.path)

    kind = RunFolder if prepared.process_group.is_chief else NonChiefRunFolder
    return kind(files.as_path(prepared.process_group.broadcast_from_chief(open_or_make)), prepared.description)


def _finished_result(start: _StartingPoint) -> Result:
    assert start.path is not None
    assert start.checkpoint is not None
    logging.info("%s is finished; there is nothing left to do.", start.path)
    state = start.checkpoint.state
    return Result(
        path=cast(Path, start.path),
        history=[dict(row) for row in state["history"]],
        bad_images=dict(state["bad_images"]),
        was_finished=True,
        best_epochs=BestModels.epochs_of_state(state.get("best", {})),
    )


def _hints(prepared: PreparedRun, history: list[Row]) -> tuple[str, ...]:
    hint = no_learning_hint(prepared.run, history, prepared.train, prepared.val, prepared.plain.weights)
    return tuple(hint for hint in (prepared.plain.warning, hint) if hint)


def _log_bad_images(prepared: PreparedRun) -> None:
    if count := len(prepared.bad_images):
        images, were = counted(count, "image{s}"), "was" if count == 1 else "were"
        logging.warning("%s could not be read and %s skipped; see bad_images.csv.", images, were)
