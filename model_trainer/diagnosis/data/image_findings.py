"""Findings about the images themselves: their format, colors, size and crop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from model_trainer.diagnosis.data.image_finding import make_image_finding
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Finding

__all__ = ["image_findings"]

EXTREME_ASPECT = 4.0  # ratio of the longer to the shorter side, above which an image is reported

_ORIENTATIONS = {  # of EXIF
    2: "mirrored",
    3: "rotated by 180 degrees",
    4: "upside down and mirrored",
    5: "mirrored and rotated",
    6: "rotated by 90 degrees",
    7: "mirrored and rotated",
    8: "rotated by 270 degrees",
}
_FIX = "For a folder, `--fix DIR` writes a copy with"


def image_findings(survey: Survey, min_size: int) -> Iterator[Finding]:
    """Yields what is unusual about the images of `survey`.

    Args:
        survey: the facts about the images.
        min_size: pixels; an image with a shorter side is reported as tiny.
    """
    readable = survey["state"] == State.READABLE
    height, width = _sizes(survey)

    def size_text(image: int) -> str:
        return f"{width[image]} × {height[image]}"

    def report(is_affected: np.ndarray, detail: Callable[[int], str], **strings: str) -> list[Finding]:
        images = np.flatnonzero(readable & is_affected)
        details = {int(each): detail(each) for each in images[:MAX_EXAMPLES]}
        return make_image_finding(survey, images, level=strings.pop("level", "warning"), details=details, **strings)  # type: ignore[arg-type]

    yield from report(
        survey["is_crop_outside"],
        lambda image: _crop_text(survey, image),
        id="crop-outside",
        level="fault",
        title="crop region{s} outside the image",
        why="Such a region cannot be cut out. Training skips the example, as it skips an image that cannot be read.",
        cure="A crop is [x, y, width, height] in pixels of the upright image. Correct it, or leave it empty for the "
        "whole image.",
    )
    yield from report(
        survey["is_blank"],
        size_text,
        id="blank",
        title="blank image{s} of a single color",
        why="They show nothing; whatever the model learns from such an image is wrong.",
        cure="Check them and remove them.",
    )
    yield from report(
        survey["is_animated"],
        lambda image: "only its first frame is used",
        id="animated",
        title="animated image{s} or file{s} of several pages",
        why="Training uses the first frame only, which may be empty or a title.",
        cure=f"{_FIX} the first frame only.",
    )
    yield from report(
        survey["is_cmyk"],
        size_text,
        id="cmyk",
        title="image{s} in CMYK, the colors of print",
        why="They are converted to RGB without their color profile, so their colors are slightly off; many programs "
        "show them inverted.",
        cure=f"{_FIX} RGB images. For exact colors convert them yourself, with their color profile.",
    )
    yield from report(
        survey["bits"] > 8,
        lambda image: f"{survey['bits'][image]} bits, {size_text(image)}",
        id="16-bit",
        title="image{s} with more than 8 bits per channel",
        why="Training scales them to 8 bits, 0 to 255. A dark one, such as a medical or depth image, may lose all its "
        "detail.",
        cure=f"{_FIX} 8 bits per channel. If their range matters, scale them yourself first.",
    )
    smaller, larger = np.minimum(height, width), np.maximum(height, width)
    yield from report(
        smaller < min_size,
        size_text,
        id="tiny",
        title=f"image{{s}} with a side below {min_size} pixels",
        why="They are enlarged to the model's input size and show little detail; in scraped data many are icons.",
        cure="Remove them. If all images are so small, choose a smaller input size: `--set "
        "spec.target_size=[64,64,3]`; `--min-size` sets the limit.",
    )
    yield from report(
        larger > EXTREME_ASPECT * np.maximum(smaller, 1),
        size_text,
        id="extreme-aspect",
        title=f"image{{s}} with an aspect ratio above {EXTREME_ASPECT:g}",
        why="Only a small region of them is left after cropping to the model's input shape; they are often banners or "
        "page borders.",
        cure="Remove them, or crop them first. `--set spec.resize=pad` shows the whole image, smaller.",
    )
    yield from report(
        survey["orientation"] > 1,
        lambda image: _ORIENTATIONS[int(survey["orientation"][image])],
        id="exif-orientation",
        level="note",
        title="image{s} with an EXIF rotation",
        why="Training and prediction rotate them upright. A program that ignores EXIF sees them rotated.",
        cure=f"Nothing for training. {_FIX} upright images.",
    )


def _sizes(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """The heights and widths of the images that training sees: of the crop region if there is one."""
    height, width = survey["height"].copy(), survey["width"].copy()
    first = 0
    for split in survey.splits:
        if split.examples.crops is not None:
            rows = slice(first, first + len(split.examples))
            has_crop = (split.examples.crops[:, 2] > 0) & ~survey["is_crop_outside"][rows]
            height[rows] = np.where(has_crop, split.examples.crops[:, 2], height[rows])
            width[rows] = np.where(has_crop, split.examples.crops[:, 3], width[rows])
        first += len(split.examples)
    return height, width


def _crop_text(survey: Survey, image: int) -> str:
    top, left, height, width = survey.crop(image) or (0, 0, 0, 0)
    size = f"{survey['width'][image]} × {survey['height'][image]}"
    return f"crop {[left, top, width, height]} of an image of {size}"
