"""Probably wrong labels are found in labels of which some were changed on purpose."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from model_trainer.errors import MissingExtra
from model_trainer.evaluation import label_issues
from model_trainer.evaluation.label_issues import find_label_issues, write_label_issues
from model_trainer.sources import Examples
from model_trainer.sources.label_rows import LabelRows

CLASSES = ("cat", "dog", "eel", "fox")

needs_cleanlab = pytest.mark.skipif(
    importlib.util.find_spec("cleanlab") is None, reason="cleanlab, the extra 'labels', is not installed"
)


def examples_of(labels: np.ndarray | LabelRows, classes: tuple[str, ...] = CLASSES) -> Examples:
    return Examples.of_files((f"{index}.jpg" for index in range(len(labels))), labels, classes, "given")


def flipped(num_images: int = 400, num_flipped: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which some are changed, the true labels, the changed indices, and the probabilities of a good model."""
    random = np.random.default_rng(0)
    truth = random.integers(0, len(CLASSES), num_images)
    probabilities = random.dirichlet(np.ones(len(CLASSES)), num_images).astype(np.float32) * 0.4
    probabilities[np.arange(num_images), truth] += 0.6
    changed = random.choice(num_images, num_flipped, replace=False)
    labels = truth.copy()
    labels[changed] = (truth[changed] + random.integers(1, len(CLASSES), num_flipped)) % len(CLASSES)
    return labels, truth, changed, probabilities


@needs_cleanlab
@pytest.mark.parametrize(("max_bytes", "least"), [(1 << 20, 18), (0, 12)], ids=["at once", "in chunks"])
def test_changed_labels_are_found_with_the_true_class_suggested(
    max_bytes: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_issues, "MAX_BYTES_AT_ONCE", max_bytes)
    labels, truth, changed, probabilities = flipped()
    issues = find_label_issues(examples_of(labels), probabilities)
    indices = [int(issue.path.removesuffix(".jpg")) for issue in issues]
    assert len(indices) >= least
    assert {*indices} <= {*changed}
    for issue, index in zip(issues, indices, strict=True):
        assert (issue.label, issue.suggested_label) == (CLASSES[labels[index]], CLASSES[truth[index]])
        assert issue.label_quality == probabilities[index, labels[index]]
    assert [issue.label_quality for issue in issues] == sorted(issue.label_quality for issue in issues)


@needs_cleanlab
def test_the_reason_of_an_issue_has_the_probabilities_of_both_classes() -> None:
    labels, _, changed, probabilities = flipped(num_flipped=1)
    probabilities[changed] = 0.01
    probabilities[changed, (labels[changed] + 1) % 4] = 0.97
    (issue,) = find_label_issues(examples_of(labels), probabilities)
    assert issue.reason == f"predicted {CLASSES[(int(labels[changed[0]]) + 1) % 4]} 0.97, {issue.label} 0.01"


@needs_cleanlab
def test_a_class_without_images_does_not_change_the_issues() -> None:
    labels, _, changed, probabilities = flipped()
    wider = np.hstack([probabilities * 0.99, np.full((len(labels), 1), 0.01, np.float32)])
    issues = find_label_issues(examples_of(labels, (*CLASSES, "owl")), wider)
    assert {int(issue.path.removesuffix(".jpg")) for issue in issues} <= {*changed}
    assert len(issues) >= 18


@needs_cleanlab
def test_labels_of_a_single_class_have_no_issues() -> None:
    assert find_label_issues(examples_of(np.zeros(10, np.int32)), np.full((10, 4), 0.25, np.float32)) == []


def tags(num_images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Dense tags and probabilities that agree with them; both `(num_images, 4)`."""
    random = np.random.default_rng(1)
    dense = (random.random((num_images, 4)) < 0.4).astype(np.float32)
    probabilities = np.where(dense > 0, random.uniform(0.7, 1, dense.shape), random.uniform(0, 0.3, dense.shape))
    return dense, probabilities.astype(np.float32)


@needs_cleanlab
def test_wrong_and_missing_tags_are_found() -> None:
    dense, probabilities = tags()
    dense[7], probabilities[7] = [1, 0, 0, 1], [0.95, 0.98, 0.03, 0.01]  # dog is missing, fox is wrong
    (issue,) = find_label_issues(examples_of(LabelRows.of_dense(dense)), probabilities)
    assert (issue.path, issue.label, issue.suggested_label) == ("7.jpg", "cat|fox", "cat|dog")
    assert issue.reason == "dog 0.98 is missing; fox 0.01 is given"
    assert issue.label_quality == pytest.approx(0.01)


@needs_cleanlab
def test_issues_of_tags_agree_with_cleanlabs_multi_label_function() -> None:
    from cleanlab.multilabel_classification.filter import find_label_issues as find_with_cleanlab

    dense, probabilities = tags()
    random = np.random.default_rng(2)
    dense[random.random(dense.shape) < 0.05] = 1
    rows = [np.flatnonzero(row).tolist() for row in dense]
    expected = find_with_cleanlab(rows, probabilities, n_jobs=1)
    issues = find_label_issues(examples_of(LabelRows.of_dense(dense)), probabilities)
    assert sorted(int(issue.path.removesuffix(".jpg")) for issue in issues) == np.flatnonzero(expected).tolist()
    assert expected.sum() > 10


@needs_cleanlab
def test_unknown_tags_are_never_issues() -> None:
    dense, probabilities = tags()
    dense[7], probabilities[7] = [1, np.nan, 0, 0], [0.95, 0.98, 0.03, 0.01]
    assert find_label_issues(examples_of(LabelRows.of_dense(dense)), probabilities) == []


@needs_cleanlab
def test_the_table_has_a_row_for_each_issue(tmp_path: Path) -> None:
    labels, _, _, probabilities = flipped()
    issues = find_label_issues(examples_of(labels), probabilities)
    write_label_issues(tmp_path / "label_issues.csv", issues)
    with open(tmp_path / "label_issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "suggested_label", "label_quality", "reason"]
    assert [row["path"] for row in rows] == [issue.path for issue in issues]
    assert float(rows[0]["label_quality"]) == pytest.approx(issues[0].label_quality, abs=1e-6)


def test_without_cleanlab_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"need cleanlab. Run: .venv/bin/pip install -e '.\[labels\]'"):
        find_label_issues(examples_of(np.zeros(2, np.int32)), np.zeros((2, 4), np.float32))
