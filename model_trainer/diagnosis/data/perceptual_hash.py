"""What an image looks like, in 56 bytes: enough to find images that look nearly the same.

The difference hash tells for each of 8 by 8 places whether it is clearly darker than its right neighbour. It survives
another size, another compression and a little brightness; two shirts of different colours have the same. So the mean
colours of 4 by 4 places are kept too. Our own, because imagehash would bring SciPy and PyWavelets for these few lines.

Source: http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["NUM_COLOURS", "PerceptualHash", "perceptual_hash"]

NUM_COLOURS = 48

_CLEARLY = 4.0  # of 255; the noise of compression in an even background stays below
_BLANK = 6  # of 255: the pixels of a blank image are within it
_REDUCING_GAP = 3.0  # large images are made smaller by boxes first, which is several times as fast


@dataclass(frozen=True)
class PerceptualHash:
    """An image's look.

    Attributes:
        bits: the difference hash, 64 bits.
        colours: uint8 `(48,)`, RGB of 4 by 4 places.
        is_blank: has one colour all over, so that its hash says nothing.
    """

    bits: int
    colours: np.ndarray
    is_blank: bool


def perceptual_hash(pixels: np.ndarray) -> PerceptualHash:
    """The look of uint8 RGB `(height, width, 3)`."""
    image = Image.fromarray(pixels)
    # Bicubic, because boxes do not fit the pixels of small images, and would look different after each enlargement.
    grey = np.asarray(image.resize((9, 8), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP), np.float32).mean(-1)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1] + _CLEARLY)
    colours = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)).ravel()
    is_blank = all(high - low <= _BLANK for low, high in image.getextrema())  # type: ignore[misc]
    return PerceptualHash(int.from_bytes(bits.tobytes()), colours, is_blank)
