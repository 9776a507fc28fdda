"""What `model-trainer evaluate --precision` does: compares a faster precision with float32, and prints a table."""

from __future__ import annotations

from collections.abc import Sequence

from absl import logging
from rich.console import Console
from rich.table import Table

from model_trainer.errors import ConfigError
from model_trainer.evaluation.data import data_of_run, load_models, source_of
from model_trainer.evaluation.precision import MAX_LOSS, MIN_SAME_LABELS, compare_precisions
from model_trainer.inference.choose import EngineName
from model_trainer.inference.precision_check import PrecisionCheck, record_check
from model_trainer.metrics.paired import PairedComparison
from model_trainer.sources.source import each_read_once
from model_trainer.training.log import plain_messages

__all__ = ["check_precision"]


def check_precision(
    paths: Sequence[str],
    precision: str,
    engine: EngineName,
    *,
    data: str | None,
    root: str | None,
    batch_size: int,
    spec: str | None,
    classes: list[str] | None,
    trust: bool,
    refused: Sequence[str] = (),
) -> bool:
    """Checks whether a model may be used in a faster precision, prints the comparison, and records it.

    Args:
        paths: of one model.
        refused: options that were given and do not go together with `--precision`.

    Returns:
        Whether it passed.

    Raises:
        ConfigError: options that do not go together, or a precision that is impossible.
    """
    if refused:
        raise ConfigError("does not go together with --precision, which records a check and no evaluation.", refused[0])
    if len(paths) > 1:
        raise ConfigError(f"checks one model, got {len(paths)}.", "--precision")
    console = Console()
    with plain_messages(), each_read_once():
        (trained,) = load_models(paths, trust, spec, classes)
        source = source_of(data, root, classes, is_external=spec is not None)
        if source is None:
            source, data_source = data_of_run(trained.path, trust)
            if data_source.split == "training":
                logging.warning("The run has no validation data, so the model is checked on its training images.")
        compared = compare_precisions(
            trained, source.read_shared(), precision, engine, batch_size=batch_size, console=Console(stderr=True)
        )
        check = compared.check
        table = Table(box=None, show_header=False, pad_edge=False)
        paired = compared.correct
        for name, value in (
            ("engine", check.engine),
            ("images", f"{check.num_images:,}"),
            ("same predictions", f"{check.same_labels:.2%}"),
            ("largest change of a probability", f"{check.largest_change:.4f}"),
            (f"{check.metric} in float32", f"{check.before:.4f}"),
            (f"{check.metric} in {precision}", f"{check.after:.4f}"),
            *([] if paired is None else [("change in correct answers (95 % interval)", _interval(paired))]),
            (f"speed ({check.batch_size} images at a time)", f"{check.speed:.2f} x float32"),
        ):
            table.add_row(name, value)
        console.print(table)
        console.print(_verdict(check), highlight=False, soft_wrap=True)
        logging.info("Recorded: %s", record_check(trained.path, check))
    return check.passed


def _interval(change: PairedComparison) -> str:
    return f"{change.difference:+.4f} ({change.low:+.4f} to {change.high:+.4f})"


def _verdict(check: PrecisionCheck) -> str:
    name = check.precision
    if not check.passed:
        return (
            f"{name} did not pass: at least {MIN_SAME_LABELS:.0%} of the predictions should be the same, "
            f"{check.metric} at most {MAX_LOSS} lower, and all probabilities numbers. "
            f"`serve --precision {name}` refuses the model."
        )
    text = (
        f"{name} passed: at least {MIN_SAME_LABELS:.0%} of the predictions are the same, and {check.metric} is at most "
        f"{MAX_LOSS} lower."
    )
    return text if check.speed > 1 else f"{text} But it is not faster than float32 on this machine."
