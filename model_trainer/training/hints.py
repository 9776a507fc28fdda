"""Hints about a run that learns nothing, or takes very long, with likely causes and cures."""

from __future__ import annotations

import math

from model_trainer.messages import counted
from model_trainer.pipeline.sampling import EachOnce
from model_trainer.run.network import Network
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.source import Source
from model_trainer.specs.table import entry_of_class
from model_trainer.training.history import Row
from model_trainer.training.progress import format_seconds

__all__ = ["no_learning_hint", "slow_training_hint"]

LONG_SECONDS = 3600.0
MIN_STEPS = 500


def no_learning_hint(run: Run, history: list[Row], train: Examples, val: Examples | None, weights: str) -> str:
    """Returns a hint with likely causes if no epoch of the run was better than chance; otherwise the empty string.

    Args:
        weights: the initial weights, "random" or where they came from.
    """
    examples = train if val is None else val
    metric = run.task.metrics[0].name
    column = metric if val is None else f"val_{metric}"
    baseline = run.task.majority_baseline(examples)
    if baseline is None or not history or (val is None and not isinstance(run.training.sampling, EachOnce)):
        return ""  # sampling changes the class frequencies of training images
    accuracies = [row[column] for row in history if math.isfinite(row[column])]
    accuracy, (chance, name) = max(accuracies, default=math.nan), baseline
    # Two standard deviations of as many predictions by chance.
    if not accuracy < min(1.0, chance + 2 * math.sqrt(chance * (1 - chance) / len(examples))):
        return ""
    steps = len(history) * -(-len(train) // run.training.batch_size)
    learning_rate = run.training.learning_rate
    causes = []
    if weights == "random" and isinstance(run.network, Network) and run.network.freeze == "backbone":
        causes.append("the backbone is frozen at random weights and cannot learn: --set network.freeze=none")
    if weights == "random":
        # "auto" has tried ImageNet's weights already.
        has_imagenet = run.weights is None and entry_of_class(run.spec.class_) and run.spec.target_size[2] == 3
        start = "--set weights=imagenet, or weights=FILE" if has_imagenet else "--set weights=FILE"
        causes.append(f"random weights need more images and epochs; start from trained ones: {start}")
    if steps < MIN_STEPS:
        causes.append(f"{steps:,} steps are few: --set training.epochs={max(10, 10 * run.training.epochs)}")
    causes.append(
        f"another learning rate: --set training.learning_rate={learning_rate * 10:g}, or {learning_rate / 10:g}"
    )
    causes.append(f"labels that do not fit the images: model-trainer doctor {_path_of(run.train_data)}")
    comparison = f"{column} was {accuracy:.3f} at best; always predicting {name!r} gives {chance:.3f}."
    if accuracy > chance:
        summary = (
            f"{comparison} The difference may be chance: {counted(len(examples), 'image{s}')} are too few to tell."
        )
    else:
        summary = f"{comparison} The network has learned nothing useful."
    summary += " Likely causes, and what to try:"
    return "\n  - ".join([summary, *causes])


def _path_of(source: Source) -> str:
    """The path of the data, also of what was split or filtered."""
    while (inner := getattr(source, "source", None)) is not None:
        source = inner
    return str(getattr(source, "path", "RUN"))


def slow_training_hint(run: Run, images_per_second: float, seconds: float) -> str:
    """Returns a hint with ways to shorten a run on a CPU that takes `seconds`; the empty string if it is short."""
    if seconds < LONG_SECONDS:
        return ""
    height, width, channels = run.spec.target_size
    cures = []
    if getattr(run.network, "freeze", ()) in ("none", ()) and run.network.unfreeze is None:
        cures.append("train the head only, if the backbone has trained weights: --set network.freeze=backbone")
    if isinstance(run.network, Network) and "mobilenet" not in (run.spec.class_ or ""):
        size = f"[{height},{width},{channels}]"
        cures.append(f"a smaller network: --set spec=mobilenet_v2 --set 'spec.target_size={size}'")
    if min(height, width) >= 128:
        cures.append(f"smaller images: --set 'spec.target_size=[{height // 2},{width // 2},{channels}]'")
    if run.training.epochs > 1:
        cures.append(f"fewer epochs: --set training.epochs={max(1, run.training.epochs // 2)}")
    summary = (
        f"At {images_per_second:.1f} images/s this run takes about {format_seconds(seconds)} on the CPU. Each of "
        "these would help:"
    )
    return "\n  - ".join([summary, *cures])
