"""Output folders as training and evaluation write them, written by hand: nothing is trained."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_trainer import ImageFolder, ModelSpec, Run, Training

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """`make_folder(name, evaluation, **changes)` writes an output folder; the changes replace keys of `evaluation`.

    With `evaluation=None` there is no evaluation.json; a key that is changed to None is left out.
    """

    def make(
        name: str = "run", evaluation: dict[str, Any] | None = EVALUATION, run: Run | None = None, **changes: Any
    ) -> Path:
        folder = tmp_path / name
        (folder / "logs").mkdir(parents=True)
        (folder / "evaluation" / "images").mkdir(parents=True)
        run = run or RUN
        options = {
            "versions": {"model_trainer": "0.1.0", "keras": "3.15.1"}, "seed": 7, "weights_used": "imagenet",
            "devices_used": "1 GPU", "precision_used": "mixed_bfloat16", "num_train_images": 1234, "num_val_images": 60,
            "command": ["script/train", "--set", "training.epochs=3"], "run": run.to_dict(),
        }  # fmt: skip
        write_json(folder / "training_options.json", options)
        spec = {**run.spec.to_dict(), "classes": ["bag", "coat", "dress"], "task": run.task.to_dict()}
        write_json(folder / "model_spec.json", spec)
        (folder / "history.csv").write_text(HISTORY)
        (folder / "logs" / "metrics.jsonl").write_text(
            "".join(json.dumps({"kind": "step", "step": step, "loss": 2 / step}) + "\n" for step in range(1, 9))
        )
        for model in ("final_model.hdf5", "model_max_acc.hdf5"):
            (folder / model).write_bytes(b"")
        if evaluation is not None:
            content = {key: value for key, value in {**evaluation, **changes}.items() if value is not None}
            write_json(folder / "evaluation" / "evaluation.json", content)
            for number in range(4):
                (folder / "evaluation" / "images" / f"{number}.jpg").write_bytes(jpeg(number))
        return folder

    return make


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False, ensure_ascii=False))


def jpeg(seed: int, size: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


RUN = Run(
    name="sample",
    spec=ModelSpec.named("mobilenet_v2", target_size=(32, 48, 3)),
    train_data=ImageFolder("data/train"),
    val_data=ImageFolder("data/val"),
    training=Training(epochs=3, learning_rate=5e-4),
)

HISTORY = """\
epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds
1,1.25,0.5,1.5,0.4375,0.001,61.5
2,0.75,0.6875,nan,0.625,0.0005,30.5
3,0.5,0.8125,0.875,0.59375,0.00025,30
"""


def _estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def _bins(shift: float) -> list[dict[str, float | int]]:
    edges = np.linspace(0, 1, 16).round(4).tolist()
    return [
        {"low": low, "high": high, "images": 4, "confidence": (low + high) / 2, "accuracy": max(0.0, low - shift)}
        for low, high in itertools.pairwise(edges)
    ]


def _gallery_image(number: int, true: str, predicted: str) -> dict[str, Any]:
    return {
        "image": f"data/val/{true}/{number}.jpg", "row": number, "file": f"images/{number}.jpg",
        "map": f"images/{number}.jpg" if number < 3 else None, "true": [true], "predicted": [predicted],
        "probability": 0.875, "caption": f"caption {number}", "problem": "",
    }  # fmt: skip


EVALUATION: dict[str, Any] = {
    "version": 1,
    "created": "2026-11-26T19:03:00",
    "model": "model_max_acc.hdf5",
    "task": "Classification",
    "data": {"origin": "data/val", "split": "validation", "images": 60, "unreadable": 2, "notes": ["A note."]},
    "settings": {"tta": None, "ensemble": None, "calibrated": False,
                 "bootstrap": {"resamples": 1000, "seed": 0, "confidence": 0.95}},
    "classes": ["bag", "coat", "dress"],
    "main_metric": "accuracy",
    "baselines": {"chance": 1 / 3, "majority": 0.5, "majority_class": "dress"},
    "metrics": {
        "balanced_accuracy": _estimate(0.7311, 0.6422, 0.8533),
        "accuracy": _estimate(0.7166, 0.6011, 0.8344),
        "log_loss": _estimate(0.8765, 0.7654, 0.9876),
        "macro_auroc": _estimate(None),
    },
    "per_class": {
        "images": [10, 20, 30],
        "precision": {"value": [0.5714, 0.7895, None], "low": [0.3, 0.6, None], "high": [0.8, 0.9, None]},
        "recall": {"value": [0.8, 0.75, 0.6667], "low": [0.49, 0.53, 0.49], "high": [0.94, 0.89, 0.81]},
        "f1": {"value": [0.6667, 0.7692, 0.7273]},
    },
    "confusion": {
        "matrix": [[8, 1, 1], [2, 15, 3], [4, 6, 20]],
        "largest": [{"true": "dress", "predicted": "coat", "images": 6, "fraction": 0.2}],
    },
    "calibration": {
        "temperature": 1.31,
        "before": {"ece": 0.0812, "brier": 0.2134, "log_loss": 0.8765, "bins": _bins(0.1)},
        "after": {"ece": 0.0213, "brier": 0.2031, "log_loss": 0.7654, "bins": _bins(0.02)},
    },
    "selective": [
        {"threshold": 0.0, "coverage": 1.0, "accuracy": 0.7166},
        {"threshold": 0.9, "coverage": 0.4, "accuracy": 0.9583},
        {"threshold": 0.99, "coverage": 0.0, "accuracy": None},
    ],
    "galleries": [
        {"name": "confident_mistakes", "title": "Most confident mistakes", "explanation": "Look at the labels.",
         "images": [_gallery_image(0, "bag", "coat"), _gallery_image(1, "coat", "dress")]},
        {"name": "least_certain", "title": "Least confident correct predictions", "explanation": "",
         "images": [_gallery_image(2, "bag", "bag"), _gallery_image(3, "coat", "coat")]},
    ],
    "slices": [
        {"by": "camera", "values": [
            {"value": "B", "images": 40, "metrics": {"accuracy": _estimate(0.625, 0.4712, 0.7613)}},
            {"value": "A", "images": 20, "metrics": {"accuracy": _estimate(0.9)}},
        ]},
    ],
}  # fmt: skip

TAGS: dict[str, Any] = {
    **{key: EVALUATION[key] for key in ("version", "created", "model", "data", "classes", "per_class", "galleries")},
    "task": "MultiLabel",
    "main_metric": "map",
    "metrics": {"map": _estimate(0.6123, 0.5, 0.7), "micro_f1_at_thresholds": _estimate(0.7012)},
    "curves": [
        {"class": tag, "average_precision": 0.625, "recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.75, 0.5]}
        for tag in ("bag", "coat", "dress")
    ],
    "missed_together": [{"tags": ["bag", "coat"], "images": 12, "expected": 3.14}],
    "at_k": {"precision": {"1": 0.91, "3": 0.72}, "recall": {"1": 0.23, "3": 0.54}},
}


@pytest.fixture
def run() -> Run:
    """The run of `make_folder`."""
    return RUN


@pytest.fixture
def evaluation() -> dict[str, Any]:
    """The content of an evaluation.json for three classes."""
    return json.loads(json.dumps(EVALUATION))


@pytest.fixture
def tags() -> dict[str, Any]:
    """The content of an evaluation.json for three tags."""
    return json.loads(json.dumps(TAGS))


def write_predictions(folder: Path, predicted: dict[str, tuple[str, str]]) -> None:
    """Writes predictions.csv from `{image: (true label, predicted label)}`."""
    with (folder / "evaluation" / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["image", "true_label", "predicted_label", "probability", "correct", "true_label_probability", "loss"]
        )
        for image, (true, label) in predicted.items():
            rows.writerow([image, true, label, 0.75, true == label, 0.5, 0.25 if true == label else 1.25])


@pytest.fixture
def pair(make_folder: MakeFolder) -> tuple[Path, Path]:
    """Two runs on 100 images: 20 are wrong in both, 4 only in the second, 16 only in the first."""
    first, second = make_folder("first"), make_folder("second")
    wrong = {"first": {*range(36)}, "second": {*range(20), *range(96, 100)}}
    for folder in (first, second):
        write_predictions(
            folder,
            {f"val/{number}.jpg": ("bag", "coat" if number in wrong[folder.name] else "bag") for number in range(100)},
        )
    return first, second
