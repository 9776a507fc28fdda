"""Findings about the images themselves: their format, colours, size and crop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from model_trainer.diagnosis.data.finding_of_images import finding_of_images
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.findings.finding import MAX_EXAMPLES, Finding

__all__ = ["image_findings"]

EXTREME_ASPECT = 4.0  # the longer side, in shorter ones, above which a picture counts as a strip

_TURNS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "upside down in a mirror",
    5: "mirrored and turned",
    6: "turned by 90 degrees",
    7: "mirrored and turned",
    8: "turned by 270 degrees",
}
_FIX = "`--fix DIR` writes a copy of a folder in which"


def image_findings(survey: Survey, min_size: int) -> Iterator[Finding]:
    """What is odd about the images of `survey`.

    Args:
        min_size: pixels; an image whose shorter side has fewer is tiny.
    """
    fine = survey["state"] == State.FINE
    height, width = _sizes(survey)

    def sized(image: int) -> str:
        return f"{width[image]} × {height[image]}"

    def say(is_so: np.ndarray, detail: Callable[[int], str], **texts: str) -> list[Finding]:
        images = np.flatnonzero(fine & is_so)
        details = {int(each): detail(each) for each in images[:MAX_EXAMPLES]}
        return finding_of_images(survey, images, level=texts.pop("level", "warning"), details=details, **texts)  # type: ignore[arg-type]

    yield from say(
        survey["is_outside"],
        lambda image: _crop_words(survey, image),
        id="crop-outside",
        level="fault",
        title="crop{s} that the image does not reach",
        why="Such an example cannot be cut out. Training skips it like an image that cannot be read.",
        cure="A crop is [x, y, width, height] in pixels of the upright image. Correct it, or leave it empty for the "
        "whole image.",
    )
    yield from say(
        survey["is_blank"],
        sized,
        id="blank",
        title="image{s} of one colour all over",
        why="There is nothing to see in them; whatever the model learns from such an image is wrong.",
        cure="Look at them and take them out.",
    )
    yield from say(
        survey["is_animated"],
        lambda image: "only its first frame counts",
        id="animated",
        title="animated image{s} or file{s} of several pages",
        why="Training sees the first frame only, which may be empty or a title.",
        cure=f"{_FIX} the first frame stands alone.",
    )
    yield from say(
        survey["is_cmyk"],
        sized,
        id="cmyk",
        title="image{s} in the colours of print (CMYK)",
        why="They are turned into RGB without their colour profile, so their colours are a little off; many programs "
        "show them inverted.",
        cure=f"{_FIX} they are RGB. For exact colours convert them with their profile.",
    )
    yield from say(
        survey["bits"] > 8,
        lambda image: f"{survey['bits'][image]} bits, {sized(image)}",
        id="16-bit",
        title="image{s} of more than 8 bits a channel",
        why="Training scales them to 8 bits, 0 to 255. A dark one, such as a medical or depth image, may lose all it "
        "shows.",
        cure=f"{_FIX} they have 8 bits. If their range matters, scale them yourself before.",
    )
    smaller, larger = np.minimum(height, width), np.maximum(height, width)
    yield from say(
        smaller < min_size,
        sized,
        id="tiny",
        title=f"image{{s}} with a side below {min_size} pixels",
        why="They are enlarged to what the model takes, and show little; in scraped data many are icons.",
        cure="Take them out. If all images are so small, choose a smaller size: `--set spec.target_size=[64,64,3]`; "
        "`--min-size` sets what counts as tiny.",
    )
    yield from say(
        larger > EXTREME_ASPECT * np.maximum(smaller, 1),
        sized,
        id="extreme-aspect",
        title=f"image{{s}} more than {EXTREME_ASPECT:g} times as long as wide",
        why="Cut to the model's shape, only a small part of them is seen; these are often banners or page borders.",
        cure="Take them out, or cut them before. `--set spec.resize=pad` shows all of an image, smaller.",
    )
    yield from say(
        survey["orientation"] > 1,
        lambda image: _TURNS[int(survey["orientation"][image])],
        id="exif-orientation",
        level="note",
        title="image{s} that must be turned, as EXIF says",
        why="Training and prediction turn them upright. A program that ignores EXIF sees them turned.",
        cure=f"Nothing for training. {_FIX} they lie upright.",
    )


def _sizes(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of what counts of each image: its crop, where it has one."""
    height, width = survey["height"].copy(), survey["width"].copy()
    first = 0
    for part in survey.parts:
        if part.examples.crops is not None:
            own = slice(first, first + len(part.examples))
            has_crop = (part.examples.crops[:, 2] > 0) & ~survey["is_outside"][own]
            height[own] = np.where(has_crop, part.examples.crops[:, 2], height[own])
            width[own] = np.where(has_crop, part.examples.crops[:, 3], width[own])
        first += len(part.examples)
    return height, width


def _crop_words(survey: Survey, image: int) -> str:
    top, left, height, width = survey.crop(image) or (0, 0, 0, 0)
    size = f"{survey['width'][image]} × {survey['height'][image]}"
    return f"crop {[left, top, width, height]} of an image of {size}"
