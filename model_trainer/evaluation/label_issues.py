"""Probably wrong labels: cleanlab compares the given ones with predictions of models that have not seen the image.

Source: https://arxiv.org/abs/1911.00068, and `cleanlab.filter` for the method.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from model_trainer.errors import MissingExtra
from model_trainer.metrics.chunks import class_blocks, row_chunks
from model_trainer.sources.examples import Examples
from model_trainer.storage import files
from model_trainer.storage.lines import csv_lines

__all__ = ["FILE_NAME", "LabelIssue", "find_label_issues", "write_label_issues"]

FILE_NAME = "label_issues.csv"
COLUMNS = ("path", "label", "suggested_label", "label_quality", "reason")
# cleanlab copies the table several times. It reads a larger one in chunks, and then flags fewer labels.
MAX_BYTES_AT_ONCE = 256 << 20


@dataclass(frozen=True)
class LabelIssue:
    """A label that is probably wrong.

    Attributes:
        path: name of the image.
        label, suggested_label: names of the given and the predicted class; for tags, all names joined by "|".
        label_quality: predicted probability that the label is right, 0 to 1; for tags, the lowest of the suspicious
            ones.
        reason: the probabilities in words.
    """

    path: str
    label: str
    suggested_label: str
    label_quality: float
    reason: str


def find_label_issues(examples: Examples, probabilities: np.ndarray) -> list[LabelIssue]:
    """Finds labels that are probably wrong.

    Args:
        examples: labeled images. Of soft labels (probabilities of all classes) the most likely class is used; unknown
            tags are ignored.
        probabilities: float32 `(num_images, num_classes)`, predicted by models that were not trained on the image.

    Returns:
        The issues, those with the lowest quality first.

    Raises:
        MissingExtra: cleanlab is not installed.

    Example:
        >>> from model_trainer.evaluation.label_issues import find_label_issues
        >>> examples = ImageFolder("data/train").read()  # 8 cats, then 8 dogs
        >>> probabilities = np.repeat(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), 8, axis=0)
        >>> probabilities[3] = [0.02, 0.98]
        >>> find_label_issues(examples, probabilities)[0].reason  # doctest: +SKIP
        'predicted dog 0.98, cat 0.02'
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise MissingExtra("Probably wrong labels", "cleanlab", "labels")
    find = _tag_issues if examples.label_kind == "tags" else _class_issues
    return sorted(find(examples, probabilities), key=lambda issue: (issue.label_quality, issue.path))


def write_label_issues(path: PurePath, issues: Sequence[LabelIssue]) -> None:
    """Writes the issues as CSV, with the columns `path,label,suggested_label,label_quality,reason`.

    `model-trainer doctor --quarantine DIR --images PATH` moves the listed images.

    Raises:
        StorageError: it cannot be written.
    """
    rows = [(each.path, each.label, each.suggested_label, f"{each.label_quality:.6f}", each.reason) for each in issues]
    files.write(path, csv_lines([COLUMNS, *rows]).encode("utf-8", "surrogateescape"))


def _class_issues(examples: Examples, probabilities: np.ndarray) -> Iterator[LabelIssue]:
    labels = examples.label_rows().most_likely().astype(np.int64)
    if len(np.unique(labels)) < 2:
        return
    is_issue = _find_among_classes(labels, probabilities)
    for index in map(int, np.flatnonzero(is_issue)):
        row = np.asarray(probabilities[index])
        label, suggested = int(labels[index]), int(row.argmax())
        if suggested == label:
            continue
        given, other = examples.classes[label], examples.classes[suggested]
        reason = f"predicted {other} {row[suggested]:.2f}, {given} {row[label]:.2f}"
        yield LabelIssue(examples.name(index), given, other, float(row[label]), reason)


def _find_among_classes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """bool `(num_images,)`: whether each label is probably wrong."""
    from cleanlab.experimental.label_issues_batched import LabelInspector

    if probabilities.nbytes <= MAX_BYTES_AT_ONCE:
        return _find_at_once(labels, np.asarray(probabilities))
    inspector = LabelInspector(
        num_class=probabilities.shape[1],
        verbose=False,
        n_jobs=1,
        quality_score_kwargs={"method": "self_confidence"},
    )
    for chunk in row_chunks(probabilities):
        inspector.update_confident_thresholds(labels[chunk], np.asarray(probabilities[chunk]))
    for chunk in row_chunks(probabilities):
        inspector.score_label_quality(labels[chunk], np.asarray(probabilities[chunk]))
    is_issue = np.zeros(len(labels), bool)
    is_issue[inspector.get_label_issues()] = True
    return is_issue


def _find_at_once(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """bool `(num_images,)`: whether each label is probably wrong; for a table in memory."""
    from cleanlab.filter import find_label_issues as find

    with warnings.catch_warnings():
        # cleanlab finds nothing in a class with at most one image, and warns of each one.
        warnings.filterwarnings("ignore", message="May not flag all label issues in class")
        # In this process: workers would be forked, which TensorFlow does not survive.
        return np.asarray(find(labels, probabilities, n_jobs=1))


def _tag_issues(examples: Examples, probabilities: np.ndarray) -> Iterator[LabelIssue]:
    """As cleanlab's `find_multilabel_issues_per_class`, which cannot mask unknown tags: each tag by itself."""
    labels = examples.label_rows()
    rows, by_class = labels.row_of_entry(), np.argsort(labels.classes, kind="stable")
    starts = np.searchsorted(labels.classes[by_class], np.arange(len(examples.classes) + 1))
    suspicious: dict[int, list[tuple[int, bool, float]]] = {}  # by image: tag, whether it is given, its probability
    for block_classes, block in class_blocks(probabilities):
        for column, tag in enumerate(range(block_classes.start, block_classes.stop)):
            entries = by_class[starts[tag] : starts[tag + 1]]
            given = np.zeros(len(examples), np.float32)
            given[rows[entries]] = labels.values[entries]
            for index in map(int, _find_in_tag(given, block[:, column])):
                issue = (tag, bool(given[index] >= 0.5), float(block[index, column]))
                suspicious.setdefault(index, []).append(issue)
    for index, wrong in suspicious.items():
        row = slice(int(labels.starts[index]), int(labels.starts[index + 1]))
        tags = set(labels.classes[row][labels.values[row] >= 0.5].tolist())
        yield LabelIssue(
            path=examples.name(index),
            label=_joined(examples, tags),
            suggested_label=_joined(examples, tags ^ {tag for tag, _, _ in wrong}),
            label_quality=min(value if is_given else 1 - value for _, is_given, value in wrong),
            reason="; ".join(
                f"{examples.classes[tag]} {value:.2f} is {'given' if is_given else 'missing'}"
                for tag, is_given, value in wrong
            ),
        )


def _find_in_tag(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of the images in which a tag is probably wrong or missing; `given` is 1, 0, or NaN for unknown."""
    known = np.flatnonzero(~np.isnan(given))
    present = (given[known] >= 0.5).astype(np.int64)
    if len(np.unique(present)) < 2:
        return known[:0]
    one_against_rest = np.stack([1 - probabilities[known], probabilities[known]], axis=1)
    return known[_find_at_once(present, one_against_rest)]


def _joined(examples: Examples, tags: set[int]) -> str:
    return "|".join(examples.classes[tag] for tag in sorted(tags))
