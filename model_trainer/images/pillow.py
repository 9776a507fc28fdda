"""The exact decoder, with Pillow: for images that the fast path cannot decode, and for the reason if neither path can.

It is safe for any bytes, which at worst raise `Unreadable`: the header is read before the pixels, costly files are
refused, and large images are decoded one at a time, and converted in strips.
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
from model_trainer.images.png_chunks import without_ancillary_chunks

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

# Slightly damaged but readable files would print warnings. Set globally, because `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow refuses images of twice this number, including a frame that is larger than its GIF's header declares.
if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2 + 1

# No other formats are tried: Pillow would run Ghostscript for an EPS file, and read some text files as PPM images.
# "JPEG" includes MPO, the photos of some phones.
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

Color = tuple[int, int, int]

_LARGE_BYTES = 2**25  # a file of this size counts as large, whatever its header declares
_STRIP_PIXELS = 2**20  # converted at a time, because each step of the conversion makes another copy
_MAX_EXIF_BYTES = 2**22
_MAX_REASON = 120  # characters of Pillow's message in a reason

_one_at_a_time = threading.RLock()


class Unreadable(Exception):
    """An image cannot be read; the message is the reason, such as "is truncated".

    Args:
        is_truncated: whether the file ends too early.
        is_bomb: whether decoding would take disproportionate time or memory.
    """

    def __init__(self, problem: str, *, is_truncated: bool = False, is_bomb: bool = False) -> None:
        super().__init__(problem)
        self.is_truncated = is_truncated
        self.is_bomb = is_bomb


def decode_with_pillow(
    data: bytes, background: Color, with_alpha: bool, max_pixels: int = MAX_PIXELS
) -> np.ndarray | None:
    """Decodes the first frame of an image, upright.

    Args:
        data: the encoded image.
        background: RGB, 0 to 255, behind transparent pixels; not used `with_alpha`.
        with_alpha: keep alpha as a fourth channel.
        max_pixels: images with more are not read. The environment variable MODEL_TRAINER_MAX_PIXELS sets the default;
            only it allows more than 178,956,970, the limit of Pillow itself.

    Returns:
        uint8 `(height, width, 3)`, or 4 channels with alpha; None if the image cannot be read.
    """
    try:
        return with_image(data, lambda image: pixels_of(image, background, with_alpha, max_pixels), max_pixels)
    except Unreadable:
        return None


def why_unreadable(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """The reason why an image cannot be read, such as "is truncated"; arguments as in `decode_with_pillow`."""
    try:
        with_image(data, lambda image: pixels_of(image, (255, 255, 255), False, max_pixels), max_pixels)
    except Unreadable as problem:
        return str(problem)
    return "could not be read at first, but can be now"  # a file that changed during training


def with_image(data: bytes, use: Callable[[Image.Image], T], max_pixels: int = MAX_PIXELS) -> T:
    """Opens an image and returns `use(image)`.

    If Pillow refuses a PNG because of an ancillary chunk, such as a color profile or a second frame, `use` is called
    again without those chunks: libpng, browsers and TensorFlow ignore them, too.

    Args:
        data: the encoded image.
        use: decodes as much as it needs; may be called more than once.
        max_pixels: as in `decode_with_pillow`.

    Raises:
        Unreadable: as in `opened`.
    """
    try:
        with opened(data, max_pixels) as image:
            return use(image)
    except Unreadable as problem:
        if problem.is_bomb or format_of(data) != "PNG":
            raise
        # Most PNGs have no text chunks with an orientation: then both versions are equal, and tried once.
        for pixels in dict.fromkeys(without_ancillary_chunks(data, with_texts=texts) for texts in (True, False)):
            with contextlib.suppress(Unreadable), opened(pixels, max_pixels) as image:
                return use(image)
        raise


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Opens an image: reads its header, but not its pixels.

    Raises:
        Unreadable: the image cannot be read; any exception inside the `with` block becomes one, too.
    """
    try:
        if not data:
            raise Unreadable("is empty (0 bytes)")
        if problem := why_too_costly(data):
            raise Unreadable(problem, is_bomb=True)
        with contextlib.ExitStack() as stack:
            if len(data) > _LARGE_BYTES:
                stack.enter_context(_one_at_a_time)
            yield stack.enter_context(Image.open(io.BytesIO(data), formats=FORMATS))
    except Unreadable:
        raise
    except Image.DecompressionBombError:  # raised by Pillow's check of the header, or by `pixels_of`
        limit = f"has more than the limit of {max_pixels:,} pixels (MODEL_TRAINER_MAX_PIXELS changes it)"
        raise Unreadable(limit, is_bomb=True) from None
    except UnidentifiedImageError:
        name = format_of(data)
        if not name:
            raise Unreadable("is not an image") from None
        if name == "AVIF" and not features.check("avif"):
            raise Unreadable("is an AVIF image, and Pillow is installed without AVIF") from None
        raise _unreadable_because(SyntaxError(f"its {name} header cannot be read"), data) from None
    except MemoryError:
        raise Unreadable("needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001  # a damaged file can make Pillow raise anything
        raise _unreadable_because(error, data) from None


def format_of(data: bytes) -> str:
    """The format by the first bytes, one of `FORMATS`; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"avis")):
        return "AVIF"
    return next((name for first, name in _SIGNATURES.items() if data.startswith(first)), "")


def _unreadable_because(error: Exception, data: bytes) -> Unreadable:
    text = " ".join(str(error).split())
    is_truncated = "truncated" in text.lower() or "unexpected end" in text.lower()
    # Pillow raises these when it reads past the end.
    if is_truncated or isinstance(error, EOFError | IndexError | struct.error) or _ends_early(data):
        return Unreadable("is truncated", is_truncated=True)
    text = text if text and text.isprintable() else type(error).__name__
    return Unreadable(f"is damaged ({text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + '...'})")


def _ends_early(data: bytes) -> bool:
    """Whether the file is shorter than its header declares; only for the reason, not to refuse the file."""
    name = format_of(data)
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "TIFF":
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    needed = {"JPEG": b"\xff\xda", "PNG": b"IDAT", "GIF": b","}.get(name, b"")
    return needed not in data


_ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # of a PNG


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, from EXIF or XMP; 1 if they are missing or damaged.

    Decodes no pixels: if a PNG is not loaded yet, metadata after the pixels is not read.
    """
    has_none = isinstance(image, PngImagePlugin.PngImageFile) and not image.info.keys() & _ORIENTATION_KEYS
    if has_none or len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        # Not `PngImageFile.getexif`, which loads the pixels, and after a failure treats them as complete.
        orientation = Image.Image.getexif(image).get(0x0112, 1)
        return int(orientation) if orientation in range(1, 9) else 1
    except Exception:  # noqa: BLE001  # damaged metadata can make Pillow raise anything; the pixels are intact
        return 1


def pixels_of(
    image: Image.Image, background: Color, with_alpha: bool, max_pixels: int = MAX_PIXELS, *, min_side: int = 0
) -> np.ndarray:
    """Decodes an image from `opened`, as `decode_with_pillow` does; may raise any exception, which `opened` converts.

    Args:
        image: the opened image.
        background, with_alpha, max_pixels: as in `decode_with_pillow`.
        min_side: pixels; if above 0, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but no side becomes shorter than
            this. All of its bytes are still read.
    """
    num_pixels = image.width * image.height
    if num_pixels > max_pixels:
        raise Image.DecompressionBombError
    if min_side:
        image.draft(image.mode, (min_side, min_side))
    with _one_at_a_time if num_pixels > LARGE_PIXELS else contextlib.nullcontext():
        return _decode(image, background, with_alpha)


def _decode(image: Image.Image, background: Color, with_alpha: bool) -> np.ndarray:
    image.load()
    orientation = orientation_of(image)
    is_transparent = image.has_transparency_data
    width, height = image.size
    if height <= _STRIP_PIXELS // width:
        upright_image = image.transpose(_TURNS[orientation]) if orientation > 1 else image
        return _strip_pixels(upright_image, is_transparent, background, with_alpha)
    upright = (width, height) if orientation >= 5 else (height, width)
    pixels = np.empty((*upright, 4 if with_alpha else 3), np.uint8)
    num_rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        strip = image.crop((0, top, width, bottom))
        if orientation > 1:
            strip = strip.transpose(_TURNS[orientation])
        first, last = (height - bottom, height - top) if orientation in (3, 4, 6, 7) else (top, bottom)
        target = pixels[:, first:last] if orientation >= 5 else pixels[first:last]
        target[:] = _strip_pixels(strip, is_transparent, background, with_alpha)
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


def _strip_pixels(strip: Image.Image, is_transparent: bool, background: Color, with_alpha: bool) -> np.ndarray:
    if strip.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 instead of scaling them.
        strip, is_transparent = _scaled(strip), False
    if not is_transparent:
        mode = "RGBA" if with_alpha else "RGB"
        return np.asarray(strip if strip.mode == mode else strip.convert(mode))  # converting copies
    rgba = np.asarray(strip.convert("RGBA"))
    return rgba if with_alpha else _composite(rgba, background)


def _scaled(gray: Image.Image) -> Image.Image:
    with np.errstate(invalid="ignore"):  # for NaN
        values = np.nan_to_num(np.asarray(gray).astype(np.float64))
    if gray.mode.startswith("I"):
        return Image.fromarray(np.round(np.clip(values, 0, 65535) / 257).astype(np.uint8))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _composite(rgba: np.ndarray, background: Color) -> np.ndarray:
    """Composites the image over a uniform color: uint8 RGB."""
    alpha = rgba[..., 3:].astype(np.uint16)
    over = rgba[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha) + 128
    return ((over + (over >> 8)) >> 8).astype(np.uint8)  # divided by 255 and rounded, without leaving 16 bits
