"""The exact path, by Pillow: for what the fast path leaves, and to say why an image cannot be read.

Whatever the bytes are, nothing but "unreadable" comes of them: the header is read before the pixels, costly files are
refused, large images are decoded one at a time, and what comes after decoding works in strips.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from model_trainer.images.limits import LARGE_PIXELS, MAX_PIXELS, why_too_costly
from model_trainer.images.png_chunks import only_pixels

__all__ = [
    "FORMATS",
    "Unreadable",
    "decode_with_pillow",
    "format_of",
    "opened",
    "orientation_of",
    "pixels_of",
    "why_unreadable",
    "with_image",
]

T = TypeVar("T")

# Of odd but readable files every image would print its own. Once for all, because `catch_warnings` is not safe in the
# threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow refuses at twice this number, also what hides behind a small header, such as a frame larger than its GIF.
if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2 + 1

# Nothing else is tried: Pillow would run Ghostscript for an EPS file, and takes some text files for PPM images.
# "JPEG" also reads MPO, the photos of some phones.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

Colour = tuple[int, int, int]

_LARGE_BYTES = 2**25  # a file of this size counts as large, whatever its header says
_STRIP_PIXELS = 2**20  # converted at a time, because each step of it takes as much memory again
_MAX_EXIF_BYTES = 2**22
_MAX_REASON = 120  # characters of a reason that are Pillow's

_one_at_a_time = threading.RLock()


class Unreadable(Exception):
    """Why, as a person says it: "is truncated"."""

    def __init__(self, reason: str, *, is_truncated: bool = False, is_bomb: bool = False) -> None:
        super().__init__(reason)
        self.is_truncated = is_truncated
        self.is_bomb = is_bomb


def decode_with_pillow(
    data: bytes, background: Colour, with_alpha: bool, max_pixels: int = MAX_PIXELS
) -> np.ndarray | None:
    """The first frame, upright: uint8 `(height, width, 3)`, or 4 with alpha; None when it cannot be read.

    Args:
        background: RGB that shows under transparent pixels, where alpha is not kept.
        max_pixels: an image of more is not read. The environment variable MODEL_TRAINER_MAX_PIXELS sets the default,
            and the only way beyond 178,956,970, where Pillow itself refuses.
    """
    try:
        return with_image(data, lambda image: pixels_of(image, background, with_alpha, max_pixels), max_pixels)
    except Unreadable:
        return None


def why_unreadable(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Why the bytes are no image that can be read, such as "is truncated"; arguments as `decode_with_pillow`."""
    try:
        with_image(data, lambda image: pixels_of(image, (255, 255, 255), False, max_pixels), max_pixels)
    except Unreadable as reason:
        return str(reason)
    return "could not be read at first, but can be now"  # a file that changed while we trained


def with_image(data: bytes, use: Callable[[Image.Image], T], max_pixels: int = MAX_PIXELS) -> T:
    """What `use` makes of the image, once it is opened.

    Where Pillow refuses a PNG for a chunk beside its pixels, such as a colour profile or a second frame, `use` is
    called again with an image without them: libpng, browsers and TensorFlow show the pixels all the same.

    Args:
        use: decodes as much as it needs; may be called twice.

    Raises:
        Unreadable: as `opened`.
    """
    try:
        with opened(data, max_pixels) as image:
            return use(image)
    except Unreadable as reason:
        if reason.is_bomb or format_of(data) != "PNG":
            raise
        # Most have no such texts, and need one attempt.
        for plain in dict.fromkeys(only_pixels(data, with_texts=with_texts) for with_texts in (True, False)):
            with contextlib.suppress(Unreadable), opened(plain, max_pixels) as image:
                return use(image)
        raise


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image with its header read, its pixels not yet.

    Raises:
        Unreadable: whatever goes wrong, also inside the `with`; nothing else comes out.
    """
    try:
        if not data:
            raise Unreadable("is empty (0 bytes)")
        if reason := why_too_costly(data):
            raise Unreadable(reason, is_bomb=True)
        with contextlib.ExitStack() as stack:
            if len(data) > _LARGE_BYTES:
                stack.enter_context(_one_at_a_time)
            yield stack.enter_context(Image.open(io.BytesIO(data), formats=FORMATS))
    except Unreadable:
        raise
    except Image.DecompressionBombError:  # Pillow raises it too, from its header check
        limit = f"has more than the limit of {max_pixels:,} pixels (MODEL_TRAINER_MAX_PIXELS changes it)"
        raise Unreadable(limit, is_bomb=True) from None
    except UnidentifiedImageError:
        name = format_of(data)
        if not name:
            raise Unreadable("is not an image") from None
        if name == "AVIF" and not features.check("avif"):
            raise Unreadable("is an AVIF image, and Pillow is installed without AVIF") from None
        raise _told(SyntaxError(f"its {name} header cannot be read"), data) from None
    except MemoryError:
        raise Unreadable("needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001  # a damaged file can make Pillow raise anything
        raise _told(error, data) from None


def format_of(data: bytes) -> str:
    """One of `FORMATS` by the first bytes; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"avis")):
        return "AVIF"
    return next((name for first, name in _SIGNATURES.items() if data.startswith(first)), "")


def _told(error: Exception, data: bytes) -> Unreadable:
    text = " ".join(str(error).split())
    says_so = "truncated" in text.lower() or "unexpected end" in text.lower()
    # Pillow means by these that it read behind the end.
    if says_so or isinstance(error, EOFError | IndexError | struct.error) or _ends_early(data):
        return Unreadable("is truncated", is_truncated=True)
    text = text if text and text.isprintable() else type(error).__name__
    return Unreadable(f"is damaged ({text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + '...'})")


def _ends_early(data: bytes) -> bool:
    """Whether the file lacks what its first bytes announce; for a reason only, not to refuse it."""
    name = format_of(data)
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "TIFF":
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    needed = {"JPEG": b"\xff\xda", "PNG": b"IDAT", "GIF": b","}.get(name, b"")
    return needed not in data


_MAY_SAY_TURNED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # of a PNG


def orientation_of(image: Image.Image) -> int:
    """1 to 8, as EXIF or XMP say how the image must be turned; 1 where they are damaged.

    Decodes nothing: of a PNG that is not loaded yet, what stands behind the pixels is not seen.
    """
    is_silent = isinstance(image, PngImagePlugin.PngImageFile) and not image.info.keys() & _MAY_SAY_TURNED
    if is_silent or len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        # Not the PNG's own, which loads the pixels, and after a failure there takes them for whole.
        found = Image.Image.getexif(image).get(0x0112, 1)
        return int(found) if found in range(1, 9) else 1
    except Exception:  # noqa: BLE001  # damaged metadata can make Pillow raise anything; the pixels are whole
        return 1


def pixels_of(
    image: Image.Image, background: Colour, with_alpha: bool, max_pixels: int = MAX_PIXELS, *, min_side: int = 0
) -> np.ndarray:
    """As `decode_with_pillow`, of an image that `opened` gave; raises whatever Pillow does.

    Args:
        min_side: pixels; where it is given, a JPEG is decoded at a half, a quarter or an eighth of its size, as long
            as no side becomes shorter. All of its bytes are read nevertheless.
    """
    num_pixels = image.width * image.height
    if num_pixels > max_pixels:
        raise Image.DecompressionBombError
    if min_side:
        image.draft(image.mode, (min_side, min_side))
    with _one_at_a_time if num_pixels > LARGE_PIXELS else contextlib.nullcontext():
        return _decode(image, background, with_alpha)


def _decode(image: Image.Image, background: Colour, with_alpha: bool) -> np.ndarray:
    image.load()
    orientation = orientation_of(image)
    is_transparent = image.has_transparency_data
    width, height = image.size
    if height <= _STRIP_PIXELS // width:
        whole = image.transpose(_TURNS[orientation]) if orientation > 1 else image
        return _strip_pixels(whole, is_transparent, background, with_alpha)
    upright = (width, height) if orientation >= 5 else (height, width)
    pixels = np.empty((*upright, 4 if with_alpha else 3), np.uint8)
    num_rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        strip = image.crop((0, top, width, bottom))
        if orientation > 1:
            strip = strip.transpose(_TURNS[orientation])
        first, last = (height - bottom, height - top) if orientation in (3, 4, 6, 7) else (top, bottom)
        place = pixels[:, first:last] if orientation >= 5 else pixels[first:last]
        place[:] = _strip_pixels(strip, is_transparent, background, with_alpha)
    return pixels


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _strip_pixels(strip: Image.Image, is_transparent: bool, background: Colour, with_alpha: bool) -> np.ndarray:
    if strip.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 instead of scaling them.
        strip, is_transparent = _scaled(strip), False
    if not is_transparent:
        wanted = "RGBA" if with_alpha else "RGB"
        return np.asarray(strip if strip.mode == wanted else strip.convert(wanted))  # converting copies
    rgba = np.asarray(strip.convert("RGBA"))
    return rgba if with_alpha else _composite(rgba, background)


def _scaled(grey: Image.Image) -> Image.Image:
    with np.errstate(invalid="ignore"):  # of values that are no number
        values = np.nan_to_num(np.asarray(grey).astype(np.float64))
    if grey.mode.startswith("I"):
        return Image.fromarray(np.round(np.clip(values, 0, 65535) / 257).astype(np.uint8))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _composite(rgba: np.ndarray, background: Colour) -> np.ndarray:
    """uint8 RGB: the image over an even colour."""
    alpha = rgba[..., 3:].astype(np.uint16)
    over = rgba[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha) + 128
    return ((over + (over >> 8)) >> 8).astype(np.uint8)  # divided by 255 and rounded, without leaving 16 bits
