"""Findings about images that are there more than once, exactly or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from model_trainer.diagnosis.data.finding_of_images import finding_of_images
from model_trainer.diagnosis.data.near import near_groups
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Finding

__all__ = ["duplicate_findings"]

_SHOWN_OF_GROUP = 4

Group = np.ndarray  # int64, numbers of images


def duplicate_findings(survey: Survey) -> Iterator[Finding]:
    """What stands more than once in `survey`. Images that cannot be read are left out: they are alike in that only."""
    fine = np.flatnonzero(survey["state"] == State.FINE)
    groups, firsts = _exact_groups(survey, fine)
    across_splits = [group for group in groups if _num_splits(survey, group) > 1]
    across_labels = [group for group in groups if _num_labels(survey, group) > 1]
    between = ", ".join(part.name for part in survey.parts)
    has_tags = any(part.takes_tags for part in survey.parts)
    yield from _of_groups(
        survey,
        across_splits,
        _in_later_splits(survey, across_splits),
        id="duplicates-across-splits",
        level="fault",
        title=f"image{{s}} with a copy in another split ({between})",
        why="A model that has seen an image in training knows its label; validation then promises more than is true.",
        cure="Keep each on one side only. Before a new split give copies the same value in the column `group` of a "
        "manifest; a group is never parted.",
    )
    yield from _of_groups(
        survey,
        across_labels,
        _all_of(across_labels),
        id="duplicates-across-labels",
        level="fault",
        title="image{s} with a copy under another label",
        why="The same pixels cannot be right with both; at most one of the labels can be learnt.",
        cure="Keep one copy, with all tags that are true of it."
        if has_tags
        else "Decide on a label and remove the other copies. If both are true, take tags: task=MultiLabel().",
    )
    parted = {int(group[0]) for group in (*across_splits, *across_labels)}
    plain = [group for group in groups if int(group[0]) not in parted]
    yield from _of_groups(
        survey,
        plain,
        _all_of([group[1:] for group in plain]),
        id="duplicates",
        level="warning",
        title="surplus exact cop{ies}",
        why="Each copy makes its image count once more, and a random split may put the copies on both sides.",
        cure="Keep one of each.",
    )
    yield from _near(survey, firsts)


def _near(survey: Survey, firsts: np.ndarray) -> Iterator[Finding]:
    candidates = firsts[~survey["is_blank"][firsts] & ~survey["is_outside"][firsts]]
    found = near_groups(survey["look"][candidates], survey["colours"][candidates])
    groups = [candidates[group] for group in found]
    across_splits = sum(_num_splits(survey, group) > 1 for group in groups)
    across_labels = sum(_num_labels(survey, group) > 1 for group in groups)
    # The worst first: these are the examples.
    groups.sort(key=lambda group: (-_num_splits(survey, group), -_num_labels(survey, group), group[0]))
    yield from _of_groups(
        survey,
        groups,
        _all_of([group[1:] for group in groups]),
        id="near-duplicates",
        level="warning",
        title="image{s} nearly like another",
        why=f"Bursts, edits and other sizes of a picture, or products that look alike. Of {len(groups):,} groups "
        f"{across_splits:,} are on both sides of a split, which makes validation too good, and {across_labels:,} have "
        "different labels.",
        cure="Look at some. Copies on both sides of a split: keep them on one side, by the column `group` of a "
        "manifest. Different labels: one of them may be wrong.",
    )


def _exact_groups(survey: Survey, fine: np.ndarray) -> tuple[list[Group], np.ndarray]:
    """The groups of equal images, and the first of each, also of those that stand alone."""
    order = fine[np.argsort(survey["digest"][fine], kind="stable")]
    digests = survey["digest"][order]
    starts = np.flatnonzero(np.concatenate([[True], digests[1:] != digests[:-1]])) if len(order) else order
    sizes = np.diff(np.append(starts, len(order)))
    groups = [order[start : start + size] for start, size in zip(starts, sizes, strict=True) if size > 1]
    return sorted(groups, key=lambda group: int(group[0])), np.sort(order[starts])


def _split_and_label(survey: Survey, image: int) -> tuple[str, str]:
    return survey.find(image)[0].name, survey.label(image)


def _num_splits(survey: Survey, group: Group) -> int:
    return len({survey.find(int(image))[0].name for image in group})


def _num_labels(survey: Survey, group: Group) -> int:
    return len({survey.label(int(image)) for image in group})


def _in_later_splits(survey: Survey, groups: Sequence[Group]) -> np.ndarray:
    later = [
        [image for image in group if survey.find(int(image))[0] is not survey.find(int(group[0]))[0]]
        for group in groups
    ]
    return _all_of([np.array(images, np.int64) for images in later])


def _all_of(groups: Sequence[Group]) -> np.ndarray:
    return np.sort(np.concatenate(groups)) if groups else np.zeros(0, np.int64)


def _of_groups(
    survey: Survey, groups: Sequence[Group], images: np.ndarray, *, title: str, **texts: str
) -> list[Finding]:
    """One finding; its examples are whole groups, of which the first is told and the others refer to it."""
    shown: list[int] = []
    details: dict[int, str] = {}
    for group in groups:
        if len(shown) >= MAX_EXAMPLES - 1:
            break
        first, *others = map(int, group)
        shown.append(first)
        details[first] = f"{len(group):,} alike"
        # Those of another split or label first: they are why the group is told.
        kind = _split_and_label(survey, first)
        others.sort(key=lambda image: sum(a == b for a, b in zip(_split_and_label(survey, image), kind, strict=True)))
        for image in others[: _SHOWN_OF_GROUP - 1]:
            shown.append(image)
            details[image] = f"like {'/'.join(Path(survey.name(first)).parts[-2:])}"
    return finding_of_images(survey, images, title=title, details=details, shown=shown, **texts)  # type: ignore[arg-type]
