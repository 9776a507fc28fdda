"""Thumbnails of the images that findings show."""

from __future__ import annotations

from collections.abc import Iterable

from model_trainer.diagnosis.data.survey import Survey
from model_trainer.errors import StorageError
from model_trainer.images.pillow import decode_with_pillow
from model_trainer.images.thumbnail import jpeg_of

__all__ = ["make_thumbnails"]

_WHITE = (255, 255, 255)


def make_thumbnails(survey: Survey, images: Iterable[int], max_pixels: int) -> dict[int, bytes]:
    """Makes a JPEG of a few KB for each of `images` that can be read, upright and cut to its crop region.

    Args:
        survey: the facts about the images.
        images: indices in the survey.
        max_pixels: larger images are not decoded.

    Returns:
        JPEG bytes by index.
    """
    thumbnails = {}
    for image in sorted(set(images)):
        if survey["state"][image]:
            continue
        try:
            pixels = decode_with_pillow(survey.read(image), _WHITE, with_alpha=False, max_pixels=max_pixels)
        except StorageError:
            raise
        except OSError:
            continue
        if pixels is None:
            continue  # the file has changed since the survey
        if (crop := survey.crop(image)) is not None and not survey["is_crop_outside"][image]:
            top, left, height, width = crop
            pixels = pixels[top : top + height, left : left + width]
        thumbnails[image] = jpeg_of(pixels)
    return thumbnails
