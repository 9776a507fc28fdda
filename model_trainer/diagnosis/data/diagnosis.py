"""The result of examining a data set, and its machine-readable form.

`doctor.json` is one object:

```text
path        what was examined
num_images  number of images in all splits
num_bytes   total size of the encoded images
classes     {split: {class: number of images}}; the only split of an undivided data set is called "all"
sizes       {range of the shorter side in pixels: number of images}, of readable images
formats     {format: number of images}
findings    list, the most severe first, each with
              id        stable identifier, such as "truncated"
              level     "fault", "warning" or "note"
              count     how many images, classes or files
              title, why, cure   sentences
              examples  up to 24 objects {name, part, label, detail}; `part` is the split
              images    names of all images it concerns, at most 10,000
exit_code   1 if there is a fault, otherwise 0
```
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.display.pages import render_fragment
from model_trainer.findings.finding import Finding
from model_trainer.images.pillow import FORMATS
from model_trainer.messages import counted

__all__ = ["Diagnosis"]

_MAX_NAMES = 10_000
_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # pixels


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What is wrong with a data set.

    Attributes:
        path: what was examined.
        survey: the facts about each image.
        findings: the most severe first.
        thumbnails: JPEG bytes by the image's index in the survey.
    """

    path: str
    survey: Survey
    findings: tuple[Finding, ...]
    thumbnails: dict[int, bytes]

    @property
    def exit_code(self) -> int:
        """1 if there is a fault, otherwise 0."""
        return int(any(finding.level == "fault" for finding in self.findings))

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """The number of images of each class, by split."""
        return {
            split.name: dict(zip(split.examples.classes, map(int, split.examples.counts()), strict=True))
            for split in self.survey.splits
        }

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images by range of their shorter side in pixels, from the first to the last non-empty range."""
        readable = self.survey["state"] == State.READABLE
        sides = np.minimum(self.survey["width"], self.survey["height"])[readable]
        if not len(sides):
            return {}
        counts = np.bincount(np.digitize(sides, _EDGES) - 1, minlength=len(_EDGES))
        non_empty = np.flatnonzero(counts)
        return {_range(index): int(counts[index]) for index in range(non_empty[0], non_empty[-1] + 1)}

    @property
    def formats(self) -> dict[str, int]:
        """The number of images of each format, detected by their first bytes; the most frequent first."""
        counts = np.bincount(self.survey["format"], minlength=len(FORMATS) + 1)
        by_name = Counter({name: int(count) for name, count in zip((*FORMATS, "none"), counts, strict=True) if count})
        return dict(by_name.most_common())

    @property
    def num_bytes(self) -> int:
        """The total size of the encoded images."""
        return int(self.survey["num_bytes"].sum())

    def counts(self) -> dict[str, int]:
        """The number of findings of each level."""
        return dict(Counter(finding.level for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The content of `doctor.json`."""
        return {
            "path": self.path,
            "num_images": len(self.survey),
            "num_bytes": self.num_bytes,
            "classes": self.classes,
            "sizes": self.sizes,
            "formats": self.formats,
            "findings": [self._finding_to_dict(finding) for finding in self.findings],
            "exit_code": self.exit_code,
        }

    def __repr__(self) -> str:
        titles = ", ".join(finding.title for finding in self.findings) or "no problems found"
        return f"<Diagnosis of {self.path}: {titles}>"

    def _repr_html_(self) -> str:
        splits = [(split.name, counted(len(split.examples), "image{s}")) for split in self.survey.splits]
        return render_fragment("diagnosis.html", path=self.path, splits=splits, findings=self.findings)

    def _finding_to_dict(self, finding: Finding) -> dict[str, Any]:
        return {
            "id": finding.id,
            "level": finding.level,
            "count": finding.count,
            "title": finding.title,
            "why": finding.why,
            "cure": finding.cure,
            "examples": [
                {"name": each.name, "part": each.split, "label": each.label, "detail": each.detail}
                for each in finding.examples
            ],
            "images": [self.survey.name(int(image)) for image in finding.images[:_MAX_NAMES]],
        }


def _range(index: int) -> str:
    if index + 1 == len(_EDGES):
        return f"{_EDGES[index]:,} and more"
    return f"{_EDGES[index]:,} to {_EDGES[index + 1] - 1:,}"
