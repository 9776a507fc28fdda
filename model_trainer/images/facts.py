"""Facts about an encoded image, for the data set check (`doctor`): format, size, orientation, problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, TiffImagePlugin

from model_trainer.images.limits import MAX_PIXELS
from model_trainer.images.pillow import Unreadable, format_of, orientation_of, pixels_of, with_image

__all__ = ["ImageFacts", "image_facts"]


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image; if its header cannot be read, only `format` and `problem` are set.

    Attributes:
        format: by its first bytes, "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF" or "AVIF"; empty for anything else.
        width, height: in pixels, of the upright image.
        mode: Pillow's name of the pixel format, such as "RGB", "CMYK", "P".
        bits: per channel: 1, 2, 4, 8, 16 or 32; for a palette image, of the palette index.
        is_animated: whether there are several frames or pages, of which only the first is used. The additional pictures
            in photos of some phones do not count.
        exif_orientation: 1 to 8.
        problem: why the image cannot be read, as in `why_unreadable`; empty if it can.
        is_truncated: whether the problem is that the file ends too early.
        is_bomb: whether the problem is that decoding would take disproportionate time or memory.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    bits: int = 0
    is_animated: bool = False
    exif_orientation: int = 1
    problem: str = ""
    is_truncated: bool = False
    is_bomb: bool = False


def image_facts(
    data: bytes, max_pixels: int = MAX_PIXELS, *, decode: Callable[[Image.Image], object] | None = None
) -> ImageFacts:
    """Reads the header, then decodes all pixels to check that they can be read; never raises.

    Args:
        data: the encoded image.
        max_pixels: an image with more counts as a decompression bomb and is not decoded; see `decode_with_pillow`.
        decode: decodes the opened image; may be called again after a failure, and the last call counts. None decodes
            and discards the pixels.
    """
    facts = ImageFacts(format=format_of(data))
    decode = decode or (lambda image: pixels_of(image, (255, 255, 255), False, max_pixels))

    def inspect(image: Image.Image) -> None:
        nonlocal facts
        facts = _of_header(image, data, facts)
        if image.width * image.height > max_pixels:
            raise Image.DecompressionBombError
        decode(image)
        if facts.format == "PNG":  # its orientation may follow the pixels
            facts = _of_header(image, data, facts)

    try:
        with_image(data, inspect, max_pixels)
    except Unreadable as problem:
        return replace(facts, problem=str(problem), is_truncated=problem.is_truncated, is_bomb=problem.is_bomb)
    return facts


def _of_header(image: Image.Image, data: bytes, facts: ImageFacts) -> ImageFacts:
    orientation = orientation_of(image)
    # For a TIFF Pillow returns the upright size.
    is_rotated = orientation >= 5 and facts.format != "TIFF"
    width, height = image.size[::-1] if is_rotated else image.size
    return replace(
        facts,
        width=width,
        height=height,
        mode=image.mode,
        bits=_bits(image, data, facts.format),
        is_animated=facts.format != "JPEG" and _is_animated(image),
        exif_orientation=orientation,
    )


def _is_animated(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # noqa: BLE001  # Pillow reads a GIF's second frame for this, which may be damaged
        return True


def _bits(image: Image.Image, data: bytes, format: str) -> int:
    if format == "PNG":
        return data[24]  # Pillow's mode does not distinguish 8 from 16 bits
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    return 1 if image.mode == "1" else 8
