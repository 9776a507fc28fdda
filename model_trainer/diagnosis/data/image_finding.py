"""Makes a finding about images of a survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model_trainer.diagnosis.data.survey import Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Example, Finding, Level
from model_trainer.messages import counted

__all__ = ["make_image_finding"]


def make_image_finding(
    survey: Survey,
    images: np.ndarray,
    *,
    id: str,
    level: Level,
    title: str,
    why: str,
    cure: str,
    details: Mapping[int, str] | None = None,
    shown: Sequence[int] | None = None,
) -> list[Finding]:
    """Makes a finding about `images`.

    Args:
        survey: the facts about the images.
        images: int64, indices in the survey.
        id, level, why, cure: see `Finding`.
        title: with plural forms for `counted`, such as "empty file{s}".
        details: what is special about an image, by index.
        shown: the images to show as examples, in this order; by default the first of `images`.

    Returns:
        A list with the finding, or an empty list if there are no images.
    """
    if not len(images):
        return []
    chosen = [int(image) for image in (images if shown is None else shown)[:MAX_EXAMPLES]]
    examples = tuple(
        Example(
            survey.name(image), survey.find(image)[0].name, survey.label(image), (details or {}).get(image, ""), image
        )
        for image in chosen
    )
    return [Finding(id, level, counted(len(images), title), why, cure, len(images), examples, np.asarray(images))]
