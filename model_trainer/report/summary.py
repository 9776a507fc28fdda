"""The first section of the report: what was trained, how good it is, and what a reader should know before using it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from model_trainer.messages import counted
from model_trainer.report.evaluation_file import Estimate, EvaluationFile
from model_trainer.report.history_charts import best_epoch
from model_trainer.report.json_files import MAX_TEXT, shortened
from model_trainer.report.line_charts import number_text
from model_trainer.report.metric_names import is_fraction, metric_explanation, metric_name
from model_trainer.report.run_files import RunFiles

__all__ = [
    "Card",
    "Metric",
    "cards",
    "data_text",
    "estimate_text",
    "facts",
    "metrics",
    "notes",
    "seconds_text",
    "subtitle",
]

NUM_CARDS = 4
MAX_WARNINGS = 8
MAX_METRICS = 100
MAX_SECONDS = 1e9  # of an epoch: 30 years


@dataclass(frozen=True)
class Metric:
    """A metric over all images.

    Attributes:
        id: its name in evaluation.json.
        name, value, interval, explanation: texts; `interval` is empty if there is none.
    """

    id: str
    name: str
    value: str
    interval: str
    explanation: str


@dataclass(frozen=True)
class Card:
    """A metric with a scale from 0 to 1.

    Attributes:
        metric: the metric.
        value, low, high: positions in percent.
        marks: names and positions in percent of chance and the majority class.
    """

    metric: Metric
    value: float
    low: float | None
    high: float | None
    marks: tuple[tuple[str, float], ...] = ()


def subtitle(run: RunFiles) -> str:
    """One sentence: what was trained, on what."""
    spec, size = run.spec or run.run.get("spec") or {}, ""
    spec = spec if isinstance(spec, dict) else {}
    network = shortened(str(spec.get("class") or spec.get("name") or "A network").rpartition(".")[2])
    target = spec.get("target_size")
    if isinstance(target, list) and len(target) == 3:
        size = shortened(f" at {target[0]} × {target[1]}")
    classes = counted(len(run.classes), "tag{s}" if run.word == "tag" else "class{es}") if run.classes else ""
    images = run.options.get("num_train_images")
    trained = f", trained on {counted(images, 'image{s}')}" if isinstance(images, int) else ""
    return f"{network}{size}{trained}{f' of {classes}' if classes and trained else ''}."


def metrics(evaluation: EvaluationFile) -> list[Metric]:
    """All metrics over all images, the main one first."""
    names = sorted(evaluation.metrics, key=lambda name: name != evaluation.main_metric)[:MAX_METRICS]
    return [_metric(name, evaluation.metrics[name]) for name in names]


def cards(evaluation: EvaluationFile) -> list[Card]:
    """The first metrics that are fractions, with chance and the majority class on the scale of accuracy."""
    names = sorted(evaluation.metrics, key=lambda name: name != evaluation.main_metric)
    chosen = [name for name in names if _is_fraction(name, evaluation.metrics[name])][:NUM_CARDS]
    return [_card(name, evaluation) for name in chosen]


def _card(name: str, evaluation: EvaluationFile) -> Card:
    estimate, baselines = evaluation.metrics[name], evaluation.baselines
    marks: tuple[tuple[str, float], ...] = ()
    if name == "accuracy" and baselines is not None:
        majority = f"always “{baselines.majority_class}”" if baselines.majority_class else "majority class"
        named = (("chance", baselines.chance), (majority, baselines.majority))
        marks = tuple((text, _percent(value)) for text, value in named if value is not None)
    return Card(
        _metric(name, estimate),
        _percent(estimate.value or 0.0),
        None if estimate.low is None else _percent(estimate.low),
        None if estimate.high is None else _percent(estimate.high),
        marks,
    )


def _metric(name: str, estimate: Estimate) -> Metric:
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{_decimals(estimate.low)} to {_decimals(estimate.high)}"
    return Metric(name, metric_name(name), _decimals(estimate.value), interval, metric_explanation(name))


def estimate_text(estimate: Estimate | None) -> str:
    """A metric with its interval, such as "0.912 (0.887 to 0.934)"; empty without a metric."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return _decimals(estimate.value)
    return f"{_decimals(estimate.value)} ({_decimals(estimate.low)} to {_decimals(estimate.high)})"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else number_text(value)


def _is_fraction(name: str, estimate: Estimate) -> bool:
    return is_fraction(name, estimate.value, estimate.low, estimate.high)


def _percent(value: float) -> float:
    return round(100 * value, 1)


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """Names and values about data, network, training, hardware and files; those that no file contains are left out."""
    options, evaluation = run.options, run.evaluation
    rows = [
        ("Task", run.task),
        ("Training data", data_text(run.run.get("train_data"), options.get("num_train_images"))),
        ("Validation data", data_text(run.run.get("val_data"), options.get("num_val_images"))),
        ("Initial weights", str(options.get("weights_used", ""))),
        ("Epochs", _epochs(run)),
        ("Best epoch", _best(run)),
        ("Time", _time(run)),
        ("Hardware", _hardware(options)),
        ("Model files", ", ".join(run.models)),
    ]
    if evaluation is not None:
        data = evaluation.data
        images = counted(data.images, "image{s}")
        unreadable = f", {data.unreadable:,} more unreadable" if data.unreadable else ""
        rows += [
            ("Evaluated model", evaluation.model),
            ("Evaluated on", f"{data.origin}: {images}{unreadable} ({data.split} data)"),
            ("Evaluated at", evaluation.created.replace("T", " ")),
            ("Predictions", _predictions(evaluation)),
        ]
        if evaluation.baselines is not None:
            base = evaluation.baselines
            always = f"by always predicting “{base.majority_class}”"
            rows.append(
                ("Chance level", "" if base.chance is None else f"{base.chance:.3f} by uniform random guessing")
            )
            rows.append(("Majority baseline", "" if base.majority is None else f"{base.majority:.3f} {always}"))
    return [(name, shortened(value, MAX_TEXT)) for name, value in rows if value]


def data_text(source: Any, images: Any) -> str:
    """A source of images in a few words, such as "data/train (ImageFolder): 2,000 images"."""
    if not isinstance(source, dict):
        return ""
    kind = str(source.get("type", ""))
    origin = next((str(source[key]) for key in ("path", "name", "builder") if source.get(key)), "")
    name = f"{origin} ({kind})" if origin and kind else origin or kind
    return f"{name}: {counted(images, 'image{s}')}" if isinstance(images, int) and images else name


def _epochs(run: RunFiles) -> str:
    training = run.run.get("training")
    declared = training.get("epochs") if isinstance(training, dict) else None
    if not run.history:
        return ""
    batch = (
        f", {training['batch_size']} images a step" if isinstance(training, dict) and "batch_size" in training else ""
    )
    return f"{len(run.history):,}{f' of {declared:,}' if isinstance(declared, int) else ''}{batch}"


def _best(run: RunFiles) -> str:
    best = best_epoch(run)
    return f"{best[2]}, with {best[0]} {best[1]:.4f}" if best is not None else ""


def _time(run: RunFiles) -> str:
    seconds = [row["seconds"] for row in run.history if 0 < row.get("seconds", 0) < MAX_SECONDS]
    if not seconds:
        return ""
    rates = [rate for rate in (row["images_per_second"] for row in run.steps) if rate is not None]
    rate = f", {statistics.median(rates):,.0f} images/s" if rates else ""
    return f"{seconds_text(sum(seconds))}, {seconds_text(sum(seconds) / len(seconds))} an epoch{rate}"


def seconds_text(seconds: float) -> str:
    """A duration: "57 s", "4:05 min" or "3:12 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02} h"


def _hardware(options: dict[str, Any]) -> str:
    return " in ".join(str(options[key]) for key in ("devices_used", "precision_used") if options.get(key))


def _predictions(evaluation: EvaluationFile) -> str:
    settings = evaluation.settings
    parts = []
    if settings.ensemble:
        parts.append(f"mean of {counted(len(settings.ensemble), 'model{s}')}: {', '.join(settings.ensemble)}")
    if settings.tta:
        parts.append(f"mean over {settings.tta} of each image")
    if settings.calibrated:
        parts.append("calibrated")
    return "; ".join(parts)


def notes(run: RunFiles) -> list[str]:
    """What a reader should know first: missing validation data, an early end, unreadable images, warnings."""
    rows = list(run.evaluation.data.notes) if run.evaluation is not None else []
    if run.evaluation is None:
        when = "It is made at the end of training. " if not run.is_finished else ""
        rows.append(f"There is no evaluation in this folder. {when}model-trainer evaluate {run.path} writes it.")
    else:
        rows += _compared_with_majority(run.evaluation)
    if not run.is_finished and run.run:
        rows.append("Training has not finished: it is running, or was stopped. --resume continues a stopped run.")
    if run.bad_images:
        first, reason = run.bad_images[0]
        images = counted(len(run.bad_images), "image{s}")
        rows.append(f"{images} could not be read while training, such as {first} ({reason}); see bad_images.csv.")
    more = len(run.warnings) - MAX_WARNINGS
    rows += [_sentence(each) for each in run.warnings[:MAX_WARNINGS]]
    return [*rows, f"{counted(more, 'more warning{s}')} in logs/train.log."] if more > 0 else rows


def _compared_with_majority(evaluation: EvaluationFile) -> list[str]:
    """A note if the model is no better than always predicting the most frequent class."""
    accuracy, baselines = evaluation.metrics.get("accuracy"), evaluation.baselines
    if accuracy is None or baselines is None or accuracy.value is None or baselines.majority is None:
        return []
    low, high = (accuracy.value if end is None else end for end in (accuracy.low, accuracy.high))
    if low > baselines.majority:
        return []
    verdict = "worse than" if high < baselines.majority else "not distinguishable from that of"
    return [f"The accuracy is {verdict} always predicting the most frequent class."]


def _sentence(warning: str) -> str:
    """The warning; it refers to the log if it ends in ":", because a list follows there."""
    return f"{warning.rstrip(':')}; see logs/train.log." if warning.endswith(":") else warning
