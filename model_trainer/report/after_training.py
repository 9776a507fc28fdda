"""Evaluates a run when its training has ended, and writes its report. A failure here never fails the training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
from absl import logging
from rich.console import Console

from model_trainer.errors import ModelTrainerError
from model_trainer.evaluation.files import FILE_NAME, FOLDER
from model_trainer.evaluation.folds import FoldsResult
from model_trainer.evaluation.record import DataSource
from model_trainer.evaluation.session import EvaluationOptions, evaluate_and_record
from model_trainer.messages import counted
from model_trainer.model_files.load import find_model_file, load_model
from model_trainer.report.data_files import write_data_files
from model_trainer.report.preview import augmented_samples
from model_trainer.report.report import write_report
from model_trainer.run.run import Run
from model_trainer.sources.source import each_read_once
from model_trainer.storage import files
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.train import Result, end_run

__all__ = ["announce_report", "report_folds", "report_run"]

NUM_EXAMPLES, NUM_DRAWS = 8, 3


def report_run(result: Result, run: Run, console: Console) -> None:
    """Evaluates the model that `predict` uses, and writes `evaluation/` and `report/` of the output folder.

    A run that was stopped early is not evaluated, because its user may not want to wait; its report has the curves.
    Errors are logged, and Ctrl-C skips the rest.

    Args:
        result: that of training the run.
        console: shows progress.
    """
    folder = result.path / FOLDER
    with _without_failing(f"model-trainer evaluate {result.path}", "evaluated"):
        is_evaluated = result.was_finished and files.is_file(folder / FILE_NAME)
        if not result.stopped and not is_evaluated:
            _evaluate(result, run, console)
    with _without_failing(f"model-trainer report {result.path}", "described in a report"):
        files.make_folder(result.path / "report")
        if result.train_examples is not None:
            seen = augmented_samples(run, NUM_EXAMPLES, NUM_DRAWS, result.train_examples)
            write_data_files(result.path / "report", result.train_examples, result.val_examples, seen)
            _log_images(result.path, [example.images[0] for example in seen if example.original is not None])
        logging.info("Report: %s", write_report(result.path))


def announce_report(result: Result) -> None:
    """Calls `on_run_end` of the run's callbacks, such as trackers, with the metrics of its evaluation, if it has one.

    Args:
        result: that of `train_model(..., report_follows=True)`.
    """
    metrics: dict[str, Any] = {}
    try:
        if files.is_file(result.path / FOLDER / FILE_NAME):
            metrics = json.loads(files.read_text(result.path / FOLDER / FILE_NAME))["metrics"]
    except (OSError, ValueError, KeyError) as error:
        logging.warning("Callbacks get no metrics of the evaluation: %s cannot be read. (%s)", FILE_NAME, error)
    end_run(result, metrics)


def report_folds(result: FoldsResult) -> None:
    """Writes the report of each fold, and that of the out-of-fold predictions. Errors are logged."""
    for path in (*(fold.path for fold in result.folds), result.path):
        with _without_failing(f"model-trainer report {path}", "described in a report"):
            page = write_report(path)
            if path == result.path:
                logging.info("Report: %s", page)


def _evaluate(result: Result, run: Run, console: Console) -> None:
    # Trusted, because this process has just written it. By its file, not its folder: `load_model` would check the
    # manifest of the folder, which is written later.
    trained = load_model(find_model_file(result.path), trust=True)
    with each_read_once():
        source = run.val_data or run.train_data
        examples = (result.val_examples or result.train_examples) or source.read_shared()
        data = DataSource(examples.origin, "training" if run.val_data is None else "validation")
        model = trained.path.name
        logging.info("Evaluating %s on %s ...", model, counted(len(examples), f"{data.split} image{{s}}"))
        options = EvaluationOptions(batch_size=run.training.batch_size, known_bad=result.bad_images)
        evaluated, _ = evaluate_and_record(
            [trained], examples, options, result.path / FOLDER, write=True, console=console, data=data
        )
    for name, estimate in list(evaluated.evaluation.estimates().items())[:1]:
        logging.info("%s: %s on the %s data %s.", model, name, data.split, estimate)


def _log_images(path: PurePath, images: list[np.ndarray]) -> None:
    """Adds augmented training images to the TensorBoard events of the run."""
    with contextlib.closing(MetricsLog(path / "logs")) as logs:
        logs.write_images("augmented", 0, images)


@contextlib.contextmanager
def _without_failing(command: str, done: str) -> Iterator[None]:
    """MetricsLog any error instead of raising it: the models are saved, and `command` does the same again."""
    try:
        yield
    except KeyboardInterrupt:
        logging.warning("Interrupted: the run could not be %s. Do it later: %s", done, command)
    except ModelTrainerError as error:
        logging.warning("The run could not be %s: %s Try again: %s", done, error, command)
    except Exception as error:  # noqa: BLE001
        logging.exception("The run could not be %s: %s. Try again: %s", done, error, command)
