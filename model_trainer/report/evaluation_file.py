"""The content of `evaluation/evaluation.json`, checked; what a task or an earlier version lacks is None or empty."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from model_trainer.report.json_files import Count, ImageName, Name, Text, parsed, up_to

__all__ = [
    "Bin",
    "Calibration",
    "CalibrationState",
    "ClassColumn",
    "Coarse",
    "Confusion",
    "Curve",
    "Estimate",
    "EvaluationFile",
    "Gallery",
    "GalleryImage",
    "Slice",
    "read_evaluation",
]


class _Part(BaseModel):
    # Later versions may add keys; NaN and infinity are not JSON.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Estimate(_Part):
    """A metric with its 95 % confidence interval; `value` is None if undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ClassColumn(_Part):
    """A metric of each class."""

    value: list[float | None]
    low: list[float | None] | None = None
    high: list[float | None] | None = None


class Data(_Part):
    """The images that were evaluated."""

    origin: Name
    split: Name
    images: Count
    unreadable: Count = 0
    notes: Annotated[list[Text], up_to(20)] = []


class Bootstrap(_Part):
    """How the intervals of metrics over all images were computed."""

    resamples: Count
    seed: int = 0
    confidence: float = 0.95


class Settings(_Part):
    """How the predictions were made."""

    tta: Name | None = None
    ensemble: Annotated[list[Name], up_to(30)] | None = None
    calibrated: bool = False
    bootstrap: Bootstrap | None = None


class Baselines(_Part):
    """The accuracy of uniform random guessing, and of always predicting the most frequent class."""

    chance: float | None = None
    majority: float | None = None
    majority_class: Name = ""


class ConfusedPair(_Part):
    """How many images of a class were predicted as another one."""

    true: Name
    predicted: Name
    images: Count
    fraction: float | None = None


class Confusion(_Part):
    """The confusion matrix, None above 50 classes, and the largest confusions."""

    matrix: list[list[Count]] | None = None
    largest: Annotated[list[ConfusedPair], up_to(100)] = []


class Bin(_Part):
    """The images whose confidence is between `low` and `high`."""

    low: float
    high: float
    images: Count
    confidence: float | None = None
    accuracy: float | None = None


class CalibrationState(_Part):
    """How well the confidence matches the accuracy, before or after temperature scaling."""

    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    bins: Annotated[list[Bin], up_to(100)] = []


class Calibration(_Part):
    """The calibration before and, if a temperature was fitted, after scaling."""

    temperature: float | None = None
    before: CalibrationState
    after: CalibrationState | None = None


class Threshold(_Part):
    """The accuracy of the images whose confidence reaches a threshold, and their fraction."""

    threshold: float
    coverage: float | None
    accuracy: float | None


class Curve(_Part):
    """The precision-recall curve of a tag."""

    tag: Name
    average_precision: float | None = None
    recall: list[float | None]
    precision: list[float | None]

    @model_validator(mode="before")
    @classmethod
    def _rename_class(cls, data: object) -> object:  # `class` is a keyword of Python
        return {**data, "tag": data.get("class")} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        if len(self.recall) != len(self.precision):
            raise ValueError("recall and precision should have the same length")
        return self


class MissedTags(_Part):
    """Tags that were missed on the same images."""

    tags: Annotated[list[Name], up_to(30)]
    images: Count
    expected: float | None = None


class GalleryImage(_Part):
    """One image of a gallery."""

    image: ImageName
    file: Name | None = None
    map: Name | None = None
    true: Annotated[list[Name], up_to(30)] = []
    predicted: Annotated[list[Name], up_to(30)] = []
    probability: float | None = None
    caption: Name = ""
    problem: Name = ""


class Gallery(_Part):
    """Images that show something, such as the most confident mistakes."""

    name: Name
    title: Name
    explanation: Text = ""
    images: list[GalleryImage] = []


class SliceValue(_Part):
    """The metrics of the images with one value of a column."""

    value: Name
    images: Count
    metrics: dict[Name, Estimate] = {}


class Slice(_Part):
    """Metrics by the values of a column, the worst first."""

    by: Name
    values: list[SliceValue]


class Coarse(_Part):
    """The metrics of coarser classes."""

    mapping: Name
    classes: list[Name]
    metrics: dict[Name, Estimate] = {}
    per_class: dict[Name, ClassColumn | list[Count]] = {}

    @model_validator(mode="after")
    def _has_a_value_for_each_class(self) -> Self:
        _check_lengths(self.per_class, len(self.classes))
        return self


class EvaluationFile(_Part):
    """The content of `evaluation.json`."""

    version: Literal[1]
    created: Name = ""
    model: Name = ""
    task: Name = ""
    label_kind: Name = ""  # "single" or "tags"; earlier versions do not have it
    data: Data
    settings: Settings = Settings()
    classes: list[Name] = []
    main_metric: Name
    baselines: Baselines | None = None
    metrics: dict[Name, Estimate]
    per_class: dict[Name, ClassColumn | list[Count]] = {}
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    selective: Annotated[list[Threshold], up_to(400)] = []
    curves: Annotated[list[Curve], up_to(100)] = []
    missed_together: Annotated[list[MissedTags], up_to(100)] = []
    at_k: dict[Name, dict[Name, float | None]] = {}
    galleries: Annotated[list[Gallery], up_to(30)] = []
    slices: Annotated[list[Slice], up_to(30)] = []
    coarse: Coarse | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _has_a_value_for_each_class(self) -> Self:
        _check_lengths(self.per_class, len(self.classes))
        matrix = self.confusion.matrix if self.confusion else None
        if matrix is not None and {len(self.classes)} != {len(matrix), *map(len, matrix)}:
            raise ValueError(f"confusion.matrix should be {len(self.classes)} x {len(self.classes)}")
        return self


def _check_lengths(per_class: dict[Name, ClassColumn | list[Count]], num_classes: int) -> None:
    for name, column in per_class.items():
        lists = [column] if isinstance(column, list) else [column.value, column.low, column.high]
        if any(each is not None and len(each) != num_classes for each in lists):
            raise ValueError(f"per_class.{name} should have {num_classes} values, one for each class")


def read_evaluation(output_dir: PurePath) -> EvaluationFile | None:
    """Reads `evaluation/evaluation.json` of an output folder; None if there is none.

    Raises:
        DataError: it is damaged, or of a version that this program does not know.
    """
    cure = f"Evaluate again: model-trainer evaluate {output_dir}"
    return parsed(EvaluationFile, output_dir / "evaluation" / "evaluation.json", cure)
