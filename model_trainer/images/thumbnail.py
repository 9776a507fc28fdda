"""Makes thumbnails of images for web pages and notebooks."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model_trainer.images.limits import MAX_PIXELS
from model_trainer.images.pillow import Unreadable, pixels_of, with_image
from model_trainer.storage.read import why_not_read

__all__ = ["Thumbnail", "jpeg_of", "make_thumbnail"]

SIDE = 112  # pixels

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail with its caption.

    Attributes:
        name: the name of the image.
        caption: the text below it, such as its label.
        jpeg: the encoded thumbnail; None if the image cannot be read.
        problem: why the image cannot be read, such as "is truncated".
    """

    name: str
    caption: str
    jpeg: bytes | None
    problem: str = ""


def make_thumbnail(
    read: Callable[[], bytes],
    name: str,
    caption: str,
    crop: tuple[int, int, int, int] | None = None,
    side: int = SIDE,
) -> Thumbnail:
    """Makes an upright thumbnail of an image; if the image cannot be read, the result contains the reason.

    Args:
        read: returns the encoded image, or raises OSError.
        name, caption: see `Thumbnail`.
        crop: top, left, height, width of the region that is shown.
        side: maximum length of the thumbnail's sides, in pixels.
    """
    try:
        data = read()
        pixels = with_image(data, lambda image: pixels_of(image, _WHITE, False, MAX_PIXELS))
    except OSError as error:
        return Thumbnail(name, caption, None, why_not_read(error, if_missing="does not exist"))
    except Unreadable as reason:
        return Thumbnail(name, caption, None, str(reason))
    if crop is not None:
        top, left, height, width = crop
        if top < 0 or left < 0 or top + height > pixels.shape[0] or left + width > pixels.shape[1]:
            return Thumbnail(name, caption, None, f"does not contain its crop {list(crop)}")
        pixels = pixels[top : top + height, left : left + width]
    return Thumbnail(name, caption, jpeg_of(pixels, side))


def jpeg_of(pixels: np.ndarray, side: int = SIDE) -> bytes:
    """Encodes uint8 `(height, width, 3)` as a JPEG of a few KB, with at most `side` pixels on each side."""
    small = Image.fromarray(pixels)
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return file.getvalue()
