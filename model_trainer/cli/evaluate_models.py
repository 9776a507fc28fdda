"""What `model-trainer evaluate` does once TensorFlow has started: evaluates, compares, and prints."""

from __future__ import annotations

from typing import Literal

from absl import logging
from rich.console import Console

from model_trainer.cli.tables import print_comparison, print_evaluation, print_slices
from model_trainer.errors import ConfigError
from model_trainer.evaluation.compare import check_comparable, compare_evaluated, write_discordant
from model_trainer.evaluation.data import data_of_run, load_models, source_of
from model_trainer.evaluation.files import FOLDER
from model_trainer.evaluation.session import EvaluationOptions, evaluate_and_record
from model_trainer.inference.choose import EngineName
from model_trainer.report.report import write_report
from model_trainer.sources.source import each_read_once
from model_trainer.storage import files
from model_trainer.training.log import plain_messages

__all__ = ["evaluate_models"]


def evaluate_models(
    paths: list[str],
    *,
    data: str | None,
    root: str | None,
    output: str | None,
    by: tuple[str, ...],
    coarse: str | None,
    is_ensemble: bool,
    tta: Literal["flips"] | None,
    calibrated: bool,
    batch_size: int,
    engine: EngineName,
    spec: str | None,
    classes: list[str] | None,
    trust: bool,
) -> None:
    """Evaluates one model, the mean of several, or several in comparison; the options are those of the command."""
    if is_ensemble and len(paths) < 2:
        raise ConfigError("needs at least two models.", "--ensemble")
    if len(paths) > 1 and not is_ensemble and (by or coarse is not None):
        raise ConfigError("is for one model, or for several with --ensemble.", "--by" if by else "--coarse")
    options = EvaluationOptions(
        by=by, coarse=coarse, tta=tta, calibrated=calibrated, batch_size=batch_size, engine=engine
    )
    folder = None if output is None else files.as_path(output)
    console, progress = Console(), Console(stderr=True)
    with plain_messages(), each_read_once():
        models = load_models(paths, trust, spec, classes)
        source = source_of(data, root, classes, is_external=spec is not None)
        if is_ensemble or len(models) == 1:
            # The mean of several runs belongs to none of their folders.
            write = not is_ensemble or folder is not None
            evaluated, written = evaluate_and_record(
                models, source, options, folder, write=write, trust=trust, console=progress
            )
            print_evaluation(evaluated.evaluation, console)
            print_slices(evaluated, console)
            if written is not None:
                logging.info("Results: %s", written)
                if written == models[0].path.with_name(FOLDER):
                    logging.info("Report: %s", write_report(written.parent))
            return
        check_comparable(models)
        results = []
        if source is None:
            source, _ = data_of_run(models[0].path, trust)
        for model in models:
            # All on the data of the first, without touching the results that their folders have.
            evaluated, _ = evaluate_and_record([model], source, options, None, write=False, console=progress)
            results.append(evaluated)
        for model, evaluated in zip(models, results, strict=True):
            console.print(f"\n{model.path}", soft_wrap=True, highlight=False, markup=False)
            print_evaluation(evaluated.evaluation, console, by_class=False)
        comparisons = compare_evaluated(results)
        print_comparison(comparisons, console)
        if folder is not None:
            files.make_folder(folder)
            write_discordant(folder / "changed.csv", comparisons)
            logging.info("Images that only one of the models predicts correctly: %s", folder / "changed.csv")
