"""The exact path, by Pillow: for what the fast path leaves, and to say why an image cannot be read."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "decode_with_pillow", "why_file_unreadable", "why_unreadable"]

# More is refused before a pixel is decoded, so that a small file cannot fill the memory. Pillow's own limit.
MAX_PIXELS = 178_956_970

# Of odd but readable files every image would print its own. Once for all, because `catch_warnings` is not safe in the
# threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Nothing else is tried: Pillow would run Ghostscript for an EPS file, and takes some text files for PPM images.
# "JPEG" also reads MPO, the photos of some phones.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

Colour = tuple[int, int, int]


class _Unreadable(Exception):
    """Why, as a person says it: "is truncated"."""


def decode_with_pillow(data: bytes, background: Colour, with_alpha: bool) -> np.ndarray | None:
    """The first frame, upright: uint8 `(height, width, 3)`, or 4 with alpha; None when it cannot be read.

    Args:
        background: RGB that shows under transparent pixels, where alpha is not kept.
    """
    try:
        return _decode(data, background, with_alpha)
    except _Unreadable:
        return None


def why_unreadable(data: bytes) -> str:
    """Why the bytes are no image that can be read, such as "is truncated"."""
    try:
        _decode(data, (255, 255, 255), with_alpha=False)
    except _Unreadable as reason:
        return str(reason)
    return "could not be read at first, but can be now"  # a file that changed while we trained


def why_file_unreadable(path: str, *, if_missing: str) -> str:
    """Why the file is no image that can be read; `if_missing` when it does not exist."""
    try:
        with open(path, "rb") as file:
            return why_unreadable(file.read())
    except FileNotFoundError:
        return if_missing
    except OSError as error:
        return f"could not be opened ({error.strerror})"


def _decode(data: bytes, background: Colour, with_alpha: bool) -> np.ndarray:
    if not data:
        raise _Unreadable("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _to_array(image, background, with_alpha)
    except _Unreadable:
        raise
    except UnidentifiedImageError:
        raise _Unreadable("is not an image") from None
    except Image.DecompressionBombError:  # Pillow raises it too, from its header check
        raise _Unreadable(f"has more than the limit of {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # noqa: BLE001  # a damaged file can make Pillow raise anything
        text = str(error).lower()
        if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
            raise _Unreadable("is truncated") from None
        raise _Unreadable(f"is damaged ({error or type(error).__name__})") from None


def _to_array(image: Image.Image, background: Colour, with_alpha: bool) -> np.ndarray:
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # damaged metadata can make Pillow raise anything; the pixels are whole
        image = image.copy()
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 instead of scaling them.
        grey = np.asarray(image, np.float64)
        grey = np.round(np.clip(grey, 0, 65535) / 257) if image.mode.startswith("I") else np.clip(grey, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGBA" if with_alpha else "RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    return rgba if with_alpha else composite(rgba, background)


def composite(rgba: np.ndarray, background: Colour) -> np.ndarray:
    """uint8 RGB: the image over an even colour."""
    alpha = rgba[..., 3:].astype(np.float32)
    over = rgba[..., :3] * alpha + np.array(background, np.float32) * (255.0 - alpha)
    return np.round(over / 255.0).astype(np.uint8)
