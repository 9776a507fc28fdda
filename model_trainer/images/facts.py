"""What can be said of an image's bytes before it is trained on: the doctor's eyes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, TiffImagePlugin

from model_trainer.images.limits import MAX_PIXELS
from model_trainer.images.pillow import Unreadable, format_of, orientation_of, pixels_of, with_image

__all__ = ["ImageFacts", "image_facts"]


@dataclass(frozen=True)
class ImageFacts:
    """Of one image; all but `format` and `problem` stay at their defaults where its header cannot be read.

    Attributes:
        format: by its first bytes, "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF" or "AVIF"; empty for anything else.
        width: pixels, of the image turned upright.
        height: the same.
        mode: Pillow's name, such as "RGB", "CMYK", "P".
        bits: of each channel: 1, 2, 4, 8, 16 or 32; of a palette's index where there is a palette.
        is_animated: has more than one frame or page, of which only the first counts. The further pictures in the
            photos of some phones make none.
        exif_orientation: 1 to 8, how the pixels of the file must be turned.
        problem: why it cannot be read, as `why_unreadable` says it; empty when it can.
        is_truncated: the problem is that the file ends too early.
        is_bomb: the problem is that decoding would take out of all proportion.
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
    """Reads the header, then decodes all pixels to see whether they can be read; never raises.

    Args:
        data: the encoded image.
        max_pixels: an image of more is a bomb, and not decoded; see `decode_with_pillow`.
        decode: how; the last time that it is called counts. None forgets the pixels.
    """
    facts = ImageFacts(format=format_of(data))
    decode = decode or (lambda image: pixels_of(image, (255, 255, 255), False, max_pixels))

    def look(image: Image.Image) -> None:
        nonlocal facts
        facts = _of_header(image, data, facts)
        if image.width * image.height > max_pixels:
            raise Image.DecompressionBombError
        decode(image)
        if facts.format == "PNG":  # may say behind its pixels how it is turned
            facts = _of_header(image, data, facts)

    try:
        with_image(data, look, max_pixels)
    except Unreadable as reason:
        return replace(facts, problem=str(reason), is_truncated=reason.is_truncated, is_bomb=reason.is_bomb)
    return facts


def _of_header(image: Image.Image, data: bytes, facts: ImageFacts) -> ImageFacts:
    orientation = orientation_of(image)
    # Of a TIFF Pillow gives the upright size.
    is_turned = orientation >= 5 and facts.format != "TIFF"
    width, height = image.size[::-1] if is_turned else image.size
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
    except Exception:  # noqa: BLE001  # a GIF looks for its second frame, which may be damaged
        return True


def _bits(image: Image.Image, data: bytes, format: str) -> int:
    if format == "PNG":
        return data[24]  # Pillow's mode hides whether there were 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    return 1 if image.mode == "1" else 8
