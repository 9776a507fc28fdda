"""A perceptual hash of 56 bytes, by which near-duplicate images are found.

The difference hash has one bit for each of 8 by 8 cells: whether the cell is clearly darker than its right neighbor.
It survives resizing, recompression and a small change of brightness, but two shirts of different colors get the same
hash. So the mean colors of 4 by 4 cells are recorded too. Written here because imagehash would bring PyWavelets for
these few lines.

Source: http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["NUM_COLORS", "PerceptualHash", "perceptual_hash"]

NUM_COLORS = 48

_MIN_DIFFERENCE = 4.0  # of 255; compression noise in a plain background stays below
_BLANK_RANGE = 6  # of 255; the pixels of a blank image differ by at most this
_REDUCING_GAP = 3.0  # large images are reduced with a box filter first, which is several times as fast


@dataclass(frozen=True)
class PerceptualHash:
    """The perceptual hash of an image.

    Attributes:
        bits: the difference hash, 64 bits.
        colors: uint8 `(48,)`, mean RGB of 4 by 4 cells.
        is_blank: whether the image has a single color, so that its hash is meaningless.
    """

    bits: int
    colors: np.ndarray
    is_blank: bool


def perceptual_hash(pixels: np.ndarray) -> PerceptualHash:
    """Computes the perceptual hash of `pixels`, uint8 RGB `(height, width, 3)`.

    Example:
        >>> gradient = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (64, 1, 3))
        >>> perceptual_hash(gradient).is_blank
        False
    """
    image = Image.fromarray(pixels)
    # Bicubic, because a box filter does not align with the pixels of small images: an enlarged copy would differ.
    gray = np.asarray(image.resize((9, 8), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP), np.float32).mean(-1)
    bits = np.packbits(gray[:, 1:] > gray[:, :-1] + _MIN_DIFFERENCE)
    colors = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)).ravel()
    is_blank = all(high - low <= _BLANK_RANGE for low, high in image.getextrema())  # type: ignore[misc]
    return PerceptualHash(int.from_bytes(bits.tobytes()), colors, is_blank)
