"""All that was found about a data set, and its form for programs.

`doctor.json` is one object:

```text
path        what was examined
num_images  of all parts
num_bytes   of their files, as encoded
classes     {part: {class: number of images}}; the only part of an undivided data set is called "all"
sizes       {range of the shorter side in pixels: number of images}, of images that can be read
formats     {format: number of images}
findings    list, the gravest first, each with
              id        one stable word, such as "truncated"
              level     "fault", "warning" or "note"
              count     how many images, classes or files
              title, why, cure   sentences
              examples  up to 24 of {name, part, label, detail}
              images    names of all its images, at most 10,000
exit_code   1 when there is a fault, otherwise 0
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
        survey: what was seen of each image.
        findings: the gravest first.
        thumbnails: JPEG by an image's number in the survey.
    """

    path: str
    survey: Survey
    findings: tuple[Finding, ...]
    thumbnails: dict[int, bytes]

    @property
    def exit_code(self) -> int:
        """1 when there is a fault, otherwise 0."""
        return int(any(finding.level == "fault" for finding in self.findings))

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """The number of images of each class, by part."""
        return {
            part.name: dict(zip(part.examples.classes, map(int, part.examples.counts()), strict=True))
            for part in self.survey.parts
        }

    @property
    def sizes(self) -> dict[str, int]:
        """How many images have their shorter side in each range of pixels, from the first to the last with any."""
        fine = self.survey["state"] == State.FINE
        sides = np.minimum(self.survey["width"], self.survey["height"])[fine]
        if not len(sides):
            return {}
        counts = np.bincount(np.digitize(sides, _EDGES) - 1, minlength=len(_EDGES))
        used = np.flatnonzero(counts)
        return {_range(place): int(counts[place]) for place in range(used[0], used[-1] + 1)}

    @property
    def formats(self) -> dict[str, int]:
        """How many images have each format, by their first bytes; the most frequent first."""
        counts = np.bincount(self.survey["format"], minlength=len(FORMATS) + 1)
        named = Counter({name: int(count) for name, count in zip((*FORMATS, "none"), counts, strict=True) if count})
        return dict(named.most_common())

    @property
    def num_bytes(self) -> int:
        """Of all encoded images."""
        return int(self.survey["num_bytes"].sum())

    def counts(self) -> dict[str, int]:
        """How many findings there are of each level."""
        return dict(Counter(finding.level for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The form of `doctor.json`."""
        return {
            "path": self.path,
            "num_images": len(self.survey),
            "num_bytes": self.num_bytes,
            "classes": self.classes,
            "sizes": self.sizes,
            "formats": self.formats,
            "findings": [self._of_finding(finding) for finding in self.findings],
            "exit_code": self.exit_code,
        }

    def __repr__(self) -> str:
        found = ", ".join(finding.title for finding in self.findings) or "nothing found"
        return f"<Diagnosis of {self.path}: {found}>"

    def _repr_html_(self) -> str:
        parts = [(part.name, counted(len(part.examples), "image{s}")) for part in self.survey.parts]
        return render_fragment("diagnosis.html", path=self.path, parts=parts, findings=self.findings)

    def _of_finding(self, finding: Finding) -> dict[str, Any]:
        return {
            "id": finding.id,
            "level": finding.level,
            "count": finding.count,
            "title": finding.title,
            "why": finding.why,
            "cure": finding.cure,
            "examples": [
                {"name": each.name, "part": each.part, "label": each.label, "detail": each.detail}
                for each in finding.examples
            ],
            "images": [self.survey.name(int(image)) for image in finding.images[:_MAX_NAMES]],
        }


def _range(place: int) -> str:
    if place + 1 == len(_EDGES):
        return f"{_EDGES[place]:,} and more"
    return f"{_EDGES[place]:,} to {_EDGES[place + 1] - 1:,}"
