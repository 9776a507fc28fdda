"""Findings about duplicate and near-duplicate images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from model_trainer.diagnosis.data.image_finding import make_image_finding
from model_trainer.diagnosis.data.near import near_groups
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Finding

__all__ = ["duplicate_findings"]

_MAX_SHOWN_OF_GROUP = 4

Group = np.ndarray  # int64, indices of images in the survey


def duplicate_findings(survey: Survey) -> Iterator[Finding]:
    """Yields which images of `survey` occur more than once.

    Images that cannot be read are left out, because they have no pixels to compare.
    """
    readable = np.flatnonzero(survey["state"] == State.READABLE)
    groups, firsts = _exact_groups(survey, readable)
    across_splits = [group for group in groups if _num_splits(survey, group) > 1]
    across_labels = [group for group in groups if _num_labels(survey, group) > 1]
    between = ", ".join(split.name for split in survey.splits)
    has_tags = any(split.is_multi_label for split in survey.splits)
    yield from _finding_of_groups(
        survey,
        across_splits,
        _in_later_splits(survey, across_splits),
        id="duplicates-across-splits",
        level="fault",
        title=f"image{{s}} with a copy in another split ({between})",
        why="The model has already seen these images in training, so the validation metrics are too good.",
        cure="Keep each image in one split only. Before splitting again, give copies the same value in the column "
        "`group` of a manifest; a group is never divided.",
    )
    yield from _finding_of_groups(
        survey,
        across_labels,
        _images_of(across_labels),
        id="duplicates-across-labels",
        level="fault",
        title="image{s} with a copy under another label",
        why="The same pixels have contradictory labels; the model can learn at most one of them.",
        cure="Keep one copy, with all tags that apply to it."
        if has_tags
        else "Decide on a label and remove the other copies. If both are true, train a tagger: task=MultiLabel().",
    )
    reported = {int(group[0]) for group in (*across_splits, *across_labels)}
    remaining = [group for group in groups if int(group[0]) not in reported]
    yield from _finding_of_groups(
        survey,
        remaining,
        _images_of([group[1:] for group in remaining]),
        id="duplicates",
        level="warning",
        title="redundant exact cop{ies}",
        why="Each copy gives its image more weight, and a random split may put copies into training and validation.",
        cure="Keep one of each.",
    )
    yield from _near(survey, firsts)


def _near(survey: Survey, firsts: np.ndarray) -> Iterator[Finding]:
    candidates = firsts[~survey["is_blank"][firsts] & ~survey["is_crop_outside"][firsts]]
    near = near_groups(survey["difference_hash"][candidates], survey["colors"][candidates])
    groups = [candidates[group] for group in near]
    across_splits = sum(_num_splits(survey, group) > 1 for group in groups)
    across_labels = sum(_num_labels(survey, group) > 1 for group in groups)
    # The worst groups first, because the first ones become the examples.
    groups.sort(key=lambda group: (-_num_splits(survey, group), -_num_labels(survey, group), group[0]))
    yield from _finding_of_groups(
        survey,
        groups,
        _images_of([group[1:] for group in groups]),
        id="near-duplicates",
        level="warning",
        title="near-duplicate image{s}",
        why=f"Bursts, edits and resized copies of a picture, or products that look alike. Of {len(groups):,} groups "
        f"{across_splits:,} are in more than one split, which makes the validation metrics too good, and "
        f"{across_labels:,} have different labels.",
        cure="Check some of them. To keep copies in the same split, give them the same value in the column `group` of "
        "a manifest. Of different labels, one may be wrong.",
    )


def _exact_groups(survey: Survey, readable: np.ndarray) -> tuple[list[Group], np.ndarray]:
    """Groups of identical images, and one image of each group, including the images without a copy."""
    order = readable[np.argsort(survey["digest"][readable], kind="stable")]
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
    return _images_of([np.array(images, np.int64) for images in later])


def _images_of(groups: Sequence[Group]) -> np.ndarray:
    return np.sort(np.concatenate(groups)) if groups else np.zeros(0, np.int64)


def _finding_of_groups(
    survey: Survey, groups: Sequence[Group], images: np.ndarray, *, title: str, **strings: str
) -> list[Finding]:
    """One finding; its examples are groups of images, and each image refers to the first one of its group."""
    shown: list[int] = []
    details: dict[int, str] = {}
    for group in groups:
        if len(shown) >= MAX_EXAMPLES - 1:
            break
        first, *copies = map(int, group)
        shown.append(first)
        details[first] = f"{len(group):,} alike"
        # Copies with another split or label come first, because they are why the group is reported.
        original = _split_and_label(survey, first)
        copies.sort(
            key=lambda image: sum(a == b for a, b in zip(_split_and_label(survey, image), original, strict=True))
        )
        for image in copies[: _MAX_SHOWN_OF_GROUP - 1]:
            shown.append(image)
            details[image] = f"like {'/'.join(Path(survey.name(first)).parts[-2:])}"
    return make_image_finding(survey, images, title=title, details=details, shown=shown, **strings)  # type: ignore[arg-type]
