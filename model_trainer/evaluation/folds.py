"""k-fold cross-validation, from the training of each fold to metrics with mean and spread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from absl import logging
from rich.console import Console

from model_trainer.cluster.launchers import find_hosts
from model_trainer.errors import ConfigError, MissingExtra, ModelFileError, ModelTrainerError, StoppedError
from model_trainer.evaluation.evaluate import EvaluatedModel, metrics_of
from model_trainer.evaluation.files import FOLDER
from model_trainer.evaluation.fold_metrics import FoldMetric, metric_values
from model_trainer.evaluation.label_issues import FILE_NAME, find_label_issues, write_label_issues
from model_trainer.evaluation.out_of_fold import FoldPredictions, combine
from model_trainer.evaluation.predictions import NoReadableImage, Predictions
from model_trainer.evaluation.record import DataSource, record_evaluation
from model_trainer.evaluation.session import EvaluationOptions, evaluate_and_record
from model_trainer.messages import counted
from model_trainer.metrics.estimate import finite_or_none
from model_trainer.model_files.load import load_model
from model_trainer.model_files.untrusted import refuse_dangerous
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.folds import assign_folds, fold_pair
from model_trainer.sources.source import each_read_once
from model_trainer.storage import files
from model_trainer.storage.folders import only_process
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.training.folds import check_not_doubled, cleared_keras_state, data_of, train_fold_models
from model_trainer.training.folds_folder import FoldsFolder
from model_trainer.training.log import plain_messages
from model_trainer.training.signals import end_on_signals
from model_trainer.training.train import Result

__all__ = ["FoldsResult", "train_and_evaluate_folds"]

OUT_OF_FOLD = "Each image was predicted by the model of the fold that was not trained on it."


@dataclass(frozen=True)
class FoldsResult:
    """The result of a k-fold training.

    Attributes:
        path: the folder of all folds.
        folds: the result of each fold's training; fewer if the training was stopped.
        stopped: the signal that stopped it early, or the empty string; after a signal nothing below is set.
        main_metric: name of the metric by which the best models were chosen.
        metrics: each metric over the folds, by name: `folds`, `mean`, `standard_deviation`, `out_of_fold`.
        evaluation: of the out-of-fold predictions.
        num_label_issues: number of probably wrong labels in `evaluation/label_issues.csv`; None if cleanlab, which
            finds them, is not installed.
    """

    path: Path
    folds: list[Result]
    stopped: str = ""
    main_metric: str = ""
    metrics: dict[str, FoldMetric] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    num_label_issues: int | None = None

    def _repr_html_(self) -> str:
        from model_trainer.evaluation.folds_table import folds_html

        return folds_html(self)


def train_and_evaluate_folds(
    run: Run,
    folds: int = 5,
    seed: int | None = None,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
) -> FoldsResult:
    """Trains and evaluates each fold, and all folds together; see `train_folds`, which also prints and reports."""
    seed = run.training.seed if seed is None else seed
    with plain_messages(), end_on_signals():
        _check_single_process()
        source, data = data_of(run)
        fold_pair(source, folds, 0, seed)  # checks `folds` and `seed`
        folder = _find_folder(run, resume, resume_from)
        if folder is not None:
            folder.check(folds, seed, data)
        logging.info("The %d folds divide %s.", folds, data)
        with each_read_once():
            examples = source.read_shared()
            check_not_doubled(run, examples)
        fold_of = assign_folds(examples, folds, seed)
        is_new = folder is None
        if folder is None:
            run.task.check(examples)
            folder = FoldsFolder.make(run, folds, seed, data, examples.fingerprint, len(examples))
        else:
            folder.check_data(examples.fingerprint)
        logging.info("Output of all folds: %s", folder.path)
        return _train_and_evaluate(folder, is_new, run, examples, fold_of)


def _check_single_process() -> None:
    if find_hosts(None, None, os.environ) is not None:
        raise ConfigError(
            "Folds are trained by one process, but a launcher has started several. Start a single one, which uses all "
            "devices of its machine; or train each fold as a run of its own, with the data of Source.folds()."
        )


def _find_folder(run: Run, resume: bool, resume_from: str | os.PathLike[str] | None) -> FoldsFolder | None:
    if resume_from is not None:
        return FoldsFolder.find(run, os.fspath(resume_from))
    if not resume:
        return None
    folder = FoldsFolder.find(run)
    if folder is None:
        logging.info("There are no folds of %s in %s to resume; starting new ones.", run.name, run.output_dir)
    return folder


def _train_and_evaluate(
    folder: FoldsFolder, is_new: bool, run: Run, examples: Examples, fold_of: np.ndarray
) -> FoldsResult:
    with only_process(folder.path / FOLDER), _noting_errors(folder):
        try:
            folder.note(state="training")
            results = train_fold_models(folder, run)
        except (ModelTrainerError, KeyboardInterrupt) as error:
            if is_new and not folder.is_started:  # like an ordinary run that cannot start, it leaves nothing
                files.delete_folder(folder.path)
                raise
            if isinstance(error, (KeyboardInterrupt, StoppedError)):
                signal = str(error) or "Ctrl-C stopped the training immediately."
                raise StoppedError(
                    f"{signal} Finished folds are kept; the same command with --resume continues."
                ) from error
            raise
        if results[-1].stopped:
            folder.note(state="stopped")
            return FoldsResult(cast(Path, folder.path), results, results[-1].stopped)
        try:
            return _evaluate(folder, run, results, examples, fold_of)
        except (KeyboardInterrupt, StoppedError) as error:
            raise StoppedError(
                "A signal stopped the evaluation of the folds. All are trained; the same command with --resume "
                "evaluates them."
            ) from error


@contextlib.contextmanager
def _noting_errors(folder: FoldsFolder) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        folder.note_error(error)
        raise


def _evaluate(
    folder: FoldsFolder, run: Run, results: list[Result], examples: Examples, fold_of: np.ndarray
) -> FoldsResult:
    console = Console(stderr=True)
    predictions: list[FoldPredictions | None] = []
    metrics_of_folds: list[dict[str, float]] = []
    evaluated: EvaluatedModel | None = None
    for index, result in enumerate(results):
        logging.info("Evaluating fold %d of %d", index + 1, len(results))
        rows = np.flatnonzero(fold_of == index)
        try:
            with cleared_keras_state():
                evaluated = _evaluate_fold(run, result.path, examples.take(rows), console)
        except NoReadableImage as error:
            logging.warning("Fold %d has no metrics. %s", index + 1, error)
            predictions.append(None)
            metrics_of_folds.append({})
            continue
        predictions.append(
            FoldPredictions(evaluated.predictions, rows[evaluated.predictions.rows], evaluated.trained.thresholds)
        )
        metrics_of_folds.append(metric_values(evaluated.evaluation))
    if evaluated is None:
        raise NoReadableImage(f"{examples.origin}: no image of any fold could be read. See model-trainer doctor.")
    combined = combine(examples, predictions)
    evaluation = metrics_of(evaluated.trained, combined.predictions, console, thresholds=combined.thresholds)
    metrics = {
        name: FoldMetric.of([values.get(name, float("nan")) for values in metrics_of_folds], value)
        for name, value in metric_values(evaluation).items()
    }
    declared = run.task.metrics[0].name
    main_metric = declared if declared in metrics else next(iter(metrics), "")
    record_evaluation(
        folder.path / FOLDER,
        EvaluatedModel(evaluated.trained, combined.predictions, evaluation),
        DataSource(examples.origin, "out-of-fold", (OUT_OF_FOLD, _spread_text(main_metric, metrics))),
        more_columns={"fold": combined.folds},
    )
    num_label_issues = None
    if _is_better_than_chance(run, combined.predictions.examples, evaluation):
        num_label_issues = _write_label_issues(folder, combined.predictions)
    for number, (values, fold) in enumerate(zip(metrics_of_folds, predictions, strict=True)):
        finite_values = {name: finite_or_none(value) for name, value in values.items()}
        num_images = len(fold.rows) if fold is not None else 0
        folder.content["folds"][number] |= {"images": num_images, "metrics": finite_values}
    folder.note(
        state="finished",
        main_metric=main_metric,
        metrics={name: metric.to_dict() for name, metric in metrics.items()},
        label_issues=num_label_issues,
    )
    return FoldsResult(cast(Path, folder.path), results, "", main_metric, metrics, evaluation, num_label_issues)


def _spread_text(name: str, metrics: dict[str, FoldMetric]) -> str:
    if name not in metrics:
        return "The task has no metrics."
    metric = metrics[name]
    return (
        f"Over the {len(metric.folds)} folds, {name} is {metric.mean:.4f} ± {metric.standard_deviation:.4f}, mean and "
        "standard deviation; folds.json has all metrics."
    )


def _evaluate_fold(run: Run, path: Path, examples: Examples, console: Console) -> EvaluatedModel:
    trained = load_model(path, trust=_needs_trust(run))
    options = EvaluationOptions(batch_size=run.training.batch_size, with_images=False)
    data = DataSource(examples.origin, "validation")
    return evaluate_and_record([trained], examples, options, path / FOLDER, write=True, console=console, data=data)[0]


def _needs_trust(run: Run) -> bool:
    """Whether the run declares something that only a trusted file may contain, such as a custom network."""
    try:
        refuse_dangerous(run.spec, run.network, run.task)
    except ModelFileError:
        return True
    return False


def _is_better_than_chance(run: Run, examples: Examples, evaluation: Evaluation) -> bool:
    """Whether the interval of the main metric is above always predicting the largest class; if not, logs it.

    Labels that models no better than chance disagree with are not suspicious.
    """
    baseline, estimate = run.task.majority_baseline(examples), evaluation.estimates().get(run.task.metrics[0].name)
    if baseline is None or estimate is None or (estimate.low or 0.0) > baseline[0]:
        return True
    logging.info(
        "The labels were not checked: the models are not clearly better than always predicting %r.", baseline[1]
    )
    return False


def _write_label_issues(folder: FoldsFolder, predictions: Predictions) -> int | None:
    """Writes the probably wrong labels, if cleanlab is installed, and returns their number."""
    try:
        issues = find_label_issues(predictions.examples, predictions.probabilities)
    except MissingExtra as error:
        logging.info("%s Then the same command with --resume lists them.", error)
        return None
    path = folder.path / FOLDER / FILE_NAME
    write_label_issues(path, issues)
    if issues:
        logging.info("%s: see %s", counted(len(issues), "probably wrong label{s}"), path)
    return len(issues)
