"""The content of `evaluation/evaluation.json`, checked; what a task or an earlier version does not have is None."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from model_trainer.errors import DataError
from model_trainer.storage import files

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
    "parsed",
    "read_evaluation",
]

Model = TypeVar("Model", bound=BaseModel)


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

    origin: str
    split: str
    images: int
    unreadable: int = 0
    notes: list[str] = []


class Bootstrap(_Part):
    """How the intervals of metrics over all images were computed."""

    resamples: int
    seed: int = 0
    confidence: float = 0.95


class Settings(_Part):
    """How the predictions were made."""

    tta: str | None = None
    ensemble: list[str] | None = None
    calibrated: bool = False
    bootstrap: Bootstrap | None = None


class Baselines(_Part):
    """The accuracy of guessing evenly, and of always predicting the most frequent class."""

    chance: float | None = None
    majority: float | None = None
    majority_class: str = ""


class ConfusedPair(_Part):
    """How many images of a class were predicted as another one."""

    true: str
    predicted: str
    images: int
    fraction: float | None = None


class Confusion(_Part):
    """The confusion matrix, None above 50 classes, and the largest confusions."""

    matrix: list[list[int]] | None = None
    largest: list[ConfusedPair] = []


class Bin(_Part):
    """The images whose confidence is between `low` and `high`."""

    low: float
    high: float
    images: int
    confidence: float | None = None
    accuracy: float | None = None


class CalibrationState(_Part):
    """How well the confidence fits the accuracy, before or after temperature scaling."""

    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    bins: list[Bin] = []


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

    tag: str
    average_precision: float | None = None
    recall: list[float | None]
    precision: list[float | None]

    @model_validator(mode="before")
    @classmethod
    def _class_is_no_name_in_python(cls, data: object) -> object:
        return {**data, "tag": data.get("class")} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        if len(self.recall) != len(self.precision):
            raise ValueError("recall and precision should have the same length")
        return self


class MissedTags(_Part):
    """Tags that were missed on the same images."""

    tags: list[str]
    images: int
    expected: float | None = None


class GalleryImage(_Part):
    """One image of a gallery."""

    image: str
    file: str | None = None
    map: str | None = None
    true: list[str] = []
    predicted: list[str] = []
    probability: float | None = None
    caption: str = ""
    problem: str = ""


class Gallery(_Part):
    """Images that show something, such as the most confident mistakes."""

    name: str
    title: str
    explanation: str = ""
    images: list[GalleryImage] = []


class SliceValue(_Part):
    """The metrics of the images with one value of a column."""

    value: str
    images: int
    metrics: dict[str, Estimate] = {}


class Slice(_Part):
    """Metrics by the values of a column, the worst first."""

    by: str
    values: list[SliceValue]


class Coarse(_Part):
    """The metrics of coarser classes."""

    mapping: str
    classes: list[str]
    metrics: dict[str, Estimate] = {}
    per_class: dict[str, ClassColumn | list[int]] = {}

    @model_validator(mode="after")
    def _has_a_value_for_each_class(self) -> Self:
        _check_lengths(self.per_class, len(self.classes))
        return self


class EvaluationFile(_Part):
    """The content of `evaluation.json`."""

    version: Literal[1]
    created: str = ""
    model: str = ""
    task: str = ""
    data: Data
    settings: Settings = Settings()
    classes: list[str]
    main_metric: str
    baselines: Baselines | None = None
    metrics: dict[str, Estimate]
    per_class: dict[str, ClassColumn | list[int]] = {}
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    selective: list[Threshold] = []
    curves: list[Curve] = []
    missed_together: list[MissedTags] = []
    at_k: dict[str, dict[str, float | None]] = {}
    galleries: list[Gallery] = []
    slices: list[Slice] = []
    coarse: Coarse | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, data: object) -> object:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _has_a_value_for_each_class(self) -> Self:
        _check_lengths(self.per_class, len(self.classes))
        matrix = self.confusion.matrix if self.confusion else None
        if matrix is not None and {len(self.classes)} != {len(matrix), *map(len, matrix)}:
            raise ValueError(f"confusion.matrix should be {len(self.classes)} x {len(self.classes)}")
        return self


def _check_lengths(per_class: dict[str, ClassColumn | list[int]], num_classes: int) -> None:
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


def parsed(model: type[Model], path: PurePath, cure: str) -> Model | None:
    """Reads a JSON file as `model`; None if there is no file.

    Args:
        cure: ends the message about a damaged file.

    Raises:
        DataError: it cannot be read, or something in it is missing or wrong.
    """
    if not files.exists(path):
        return None
    try:
        return model.model_validate_json(files.read(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path} is damaged: {where}{': ' if where else ''}{problem}. {cure}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. {cure}") from error
