"""What a person should be told of a run that learns nothing, or takes very long: sentences from metrics."""

from __future__ import annotations

import math

from model_trainer.pipeline.sampling import EachOnce
from model_trainer.run.network import Network
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.training.history import Row
from model_trainer.training.progress import format_seconds

__all__ = ["learned_nothing", "takes_long"]

LONG_SECONDS = 3600.0
MIN_STEPS = 500


def learned_nothing(run: Run, history: list[Row], train: Examples, val: Examples | None, weights: str) -> str:
    """A hint with likely causes where the run ended no better than by chance; otherwise the empty string.

    Args:
        weights: which the network began with.
    """
    judged = train if val is None else val
    metric = run.task.metrics[0].name
    column = metric if val is None else f"val_{metric}"
    baseline = run.task.majority_baseline(judged)
    if baseline is None or not history or (val is None and not isinstance(run.training.sampling, EachOnce)):
        return ""  # sampled images are not as often of a class as the data is
    accuracy, (share, name) = history[-1][column], baseline
    # Two standard deviations of as many answers by chance.
    if not accuracy < min(1.0, share + 2 * math.sqrt(share * (1 - share) / len(judged))):
        return ""
    steps = len(history) * -(-len(train) // run.training.batch_size)
    rate = run.training.learning_rate
    causes = []
    if weights == "random":
        causes.append("random weights need more images and epochs: begin with trained ones: --set weights=FILE")
    if steps < MIN_STEPS:
        causes.append(f"{steps:,} steps are few: --set training.epochs={max(10, 10 * run.training.epochs)}")
    causes.append(f"another learning rate: --set training.learning_rate={rate * 10:g}, or {rate / 10:g}")
    data = getattr(run.train_data, "path", "RUN")
    causes.append(f"labels that do not fit the images: model-trainer doctor {data}")
    finding = (
        f"{column} ended at {accuracy:.3f}; always saying {name!r} gives {share:.3f}. The network has learnt nothing "
        "that counts. Likely causes, and what to try:"
    )
    return "\n  - ".join([finding, *causes])


def takes_long(run: Run, images_per_second: float, seconds: float) -> str:
    """What would help on a CPU where a run takes `seconds`; the empty string where that is no matter."""
    if seconds < LONG_SECONDS:
        return ""
    height, width, channels = run.spec.target_size
    cures = []
    if getattr(run.network, "freeze", ()) in ("none", ()) and run.network.unfreeze is None:
        cures.append("train the head only, where the weights are trained ones: --set network.freeze=backbone")
    if isinstance(run.network, Network) and "mobilenet" not in (run.spec.class_ or ""):
        size = f"[{height},{width},{channels}]"
        cures.append(f"a smaller network: --set spec=mobilenet_v2 --set 'spec.target_size={size}'")
    if min(height, width) >= 128:
        cures.append(f"smaller images: --set 'spec.target_size=[{height // 2},{width // 2},{channels}]'")
    if run.training.epochs > 1:
        cures.append(f"fewer epochs: --set training.epochs={max(1, run.training.epochs // 2)}")
    finding = (
        f"At {images_per_second:.1f} images/s this run takes about {format_seconds(seconds)} on the CPU. What would "
        "help, each by itself:"
    )
    return "\n  - ".join([finding, *cures])
