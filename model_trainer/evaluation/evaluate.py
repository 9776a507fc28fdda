"""Evaluates a trained model, or an ensemble of several, on labeled images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rich.console import Console

from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.predictions import TTA, Predictions, average_predictions, predict_examples
from model_trainer.metrics.chunks import Progress
from model_trainer.model_files.load import TrainedModel
from model_trainer.sources.examples import Examples
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.training.progress import SECONDS_BETWEEN_LINES

__all__ = ["EvaluatedModel", "evaluate_ensemble", "evaluate_model", "metrics_of"]


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """An evaluation together with what it was computed from.

    Attributes:
        trained: the model; the first one of an ensemble.
        predictions: the predictions for each image.
        evaluation: their metrics.
        slices: metrics of subsets of the images, as in `evaluation.json`.
        coarse: metrics of coarser classes, as in `evaluation.json`; None without them.
    """

    trained: TrainedModel
    predictions: Predictions
    evaluation: Evaluation
    slices: tuple[dict[str, Any], ...] = ()
    coarse: dict[str, Any] | None = None


def evaluate_model(
    trained: TrainedModel,
    examples: Examples,
    batch_size: int = 32,
    *,
    tta: TTA | None = None,
    console: Console | None = None,
    known_bad: Mapping[str, str] = MappingProxyType({}),
) -> EvaluatedModel:
    """Runs the model on the examples and computes the metrics of its task.

    Args:
        batch_size: images per batch.
        tta, known_bad: see `predict_examples`.
        console: shows progress; None shows none.

    Raises:
        DataError: no image could be read, or classes or labels of the examples differ from the model's.
    """
    predictions = predict_examples(trained, examples, batch_size, tta=tta, console=console, known_bad=known_bad)
    return EvaluatedModel(trained, predictions, metrics_of(trained, predictions, console))


def evaluate_ensemble(
    models: Sequence[TrainedModel],
    examples: Examples,
    batch_size: int = 32,
    *,
    tta: TTA | None = None,
    console: Console | None = None,
) -> EvaluatedModel:
    """Evaluates the mean of the probabilities of several models, each with its own preprocessing.

    The threshold of a tag is the mean of the models' thresholds. Arguments as in `evaluate_model`.

    Raises:
        ConfigError: the models have different tasks or classes.
        DataError: as in `evaluate_model`.
    """
    first = models[0]
    for each in models[1:]:
        if each.task.label_kind != first.task.label_kind or each.classes != first.classes:
            raise ConfigError(
                f"{each.path} has different classes from {first.path}: {_difference(first, each)}. The models of an "
                "ensemble need the same classes in the same order.",
            )
    predictions = average_predictions(
        [predict_examples(each, examples, batch_size, tta=tta, console=console) for each in models]
    )
    if not len(predictions.rows):
        raise DataError(f"{examples.origin}: there is no image that all {len(models)} models can read.")
    thresholds = [each.thresholds for each in models if each.thresholds is not None]
    mean = tuple(sum(values) / len(thresholds) for values in zip(*thresholds, strict=True)) if thresholds else None
    return EvaluatedModel(first, predictions, metrics_of(first, predictions, console, thresholds=mean))


def _difference(one: TrainedModel, other: TrainedModel) -> str:
    if one.task.label_kind != other.task.label_kind:
        return "one has tags, the other one class for each image"
    if set(one.classes) == set(other.classes):
        return "the same classes in another order"
    only = sorted(set(one.classes) ^ set(other.classes))
    return f"{only[0]!r} is in one of them only" + (f", and so are {len(only) - 1} more" if only[1:] else "")


def metrics_of(
    trained: TrainedModel,
    predictions: Predictions,
    console: Console | None = None,
    *,
    thresholds: tuple[float, ...] | None = None,
) -> Evaluation:
    """Computes the metrics of predictions.

    Args:
        console: shows progress if it takes long.
        thresholds: those of the tags; None for the model's own.
    """
    with metrics_progress(console) as progress:
        return trained.task.evaluate(
            predictions.examples.labels,
            predictions.probabilities,
            trained.classes,
            thresholds or trained.thresholds,
            predictions.num_bad,
            progress,
        )


@contextlib.contextmanager
def metrics_progress(console: Console | None) -> Iterator[Progress | None]:
    """Shows what is being computed and how much of it is done: a bar on a terminal, otherwise a line now and then."""
    if console is None or console.quiet:
        yield None
        return
    if not console.is_terminal:
        yield _lines(console)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn()]
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("computing metrics", total=1.0)
        yield lambda text, fraction: bar.update(task, description=text, completed=fraction)


def _lines(console: Console) -> Callable[[str, float], None]:
    import time

    last = time.monotonic()

    def show(text: str, fraction: float) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # a closed pipe
                console.print(f"{text}  {fraction:.0%}", highlight=False)

    return show
