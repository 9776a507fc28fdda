"""Writes a copy of a data set with fixed suffixes, orientation, color modes, bit depth and animations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from model_trainer.diagnosis.data.file_findings import FORMAT_OF_SUFFIX, wrong_suffixes
from model_trainer.diagnosis.data.survey import State, Survey
from model_trainer.errors import DataError, StorageError
from model_trainer.images.pillow import FORMATS, Unreadable, pixels_of, with_image
from model_trainer.storage import files
from model_trainer.storage.folders import filled_folder
from model_trainer.storage.lines import csv_lines
from model_trainer.storage.moves import free_name, link_or_copy

__all__ = ["write_fixed_copy"]

LOG_NAME = "fixed.csv"

_SUFFIX_OF_FORMAT = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "BMP": ".bmp",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "AVIF": ".avif",
}
_WHITE = (255, 255, 255)
_JPEG_QUALITY = 95


def write_fixed_copy(
    survey: Survey, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Writes a fixed copy of the data set to `folder`, atomically and with the same layout.

    Images with an EXIF rotation are rotated upright; CMYK and more than 8 bits per channel become 8-bit RGB; of an
    animation the first frame is kept. A changed JPEG stays a JPEG, of quality 95; all other formats become PNG. A wrong
    suffix is corrected. All other files, including those that are not images, become hard links, or copies on another
    disk. Images that cannot be read are left out. `fixed.csv` in `folder` has a line `from,to,change` for each image
    that is changed or left out.

    Args:
        survey: that of a data set of image folders.
        folder: must not exist, or be empty.
        on_progress: called with the number of images done and of all images.

    Returns:
        The number of changed images.

    Raises:
        DataError: `folder` is not empty.
        StorageError: the copy cannot be written.
    """
    if files.names_in(folder):
        raise DataError(f"--fix {folder} is not empty. Give a new folder for the fixed copy.")
    changes = _changes(survey)
    try:
        with filled_folder(folder) as temporary:
            num_changed = _write(survey, changes, temporary, folder, on_progress)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"The fixed copy {folder} could not be written: {error}.") from error
    return num_changed


def _changes(survey: Survey) -> dict[int, str]:
    """The description of the change by image, for images whose pixels must be rewritten or whose suffix is wrong."""
    readable = survey["state"] == State.READABLE
    rewritten: dict[int, list[str]] = {}
    for is_affected, change in (
        (survey["orientation"] > 1, "turned upright"),
        (survey["is_cmyk"], "CMYK to RGB"),
        (survey["bits"] > 8, "to 8 bits"),
        (survey["is_animated"], "first frame only"),
    ):
        for image in map(int, np.flatnonzero(readable & is_affected)):
            rewritten.setdefault(image, []).append(change)
    renamed = {int(image): "renamed" for image in wrong_suffixes(survey) if readable[image]}
    return renamed | {image: ", ".join(changes) for image, changes in rewritten.items()}


def _write(
    survey: Survey, changes: dict[int, str], temporary: Path, folder: Path, on_progress: Callable[[int, int], None]
) -> int:
    rows: list[tuple[str, str, str]] = []
    for split in survey.splits:
        for path in (*split.non_images, *split.without_class):
            link_or_copy(Path(path), temporary / split.relative(path))
    for image in range(len(survey)):
        source = survey.name(image)
        relative = survey.find(image)[0].relative(source)
        if survey["state"][image]:
            rows.append((source, "", f"left out: {survey.reasons[image]}"))
        elif image not in changes:
            link_or_copy(Path(source), temporary / relative)
        on_progress(image + 1, len(survey) + len(changes))
    # After the unchanged files, so that a new name never collides with a name that stays.
    for done, (image, change) in enumerate(sorted(changes.items()), len(survey) + 1):
        source = survey.name(image)
        target = _write_changed(survey, image, change, temporary / survey.find(image)[0].relative(source))
        rows.append((source, str(folder / target.relative_to(temporary)), change))
        on_progress(done, len(survey) + len(changes))
    table = csv_lines([("from", "to", "change"), *rows])
    # Replaced and not appended to: the data may contain a file of this name, to which the copy has a hard link.
    files.write(temporary / LOG_NAME, table.encode("utf-8", "surrogateescape"))
    return len(changes)


def _write_changed(survey: Survey, image: int, change: str, path: Path) -> Path:
    """Writes the changed image to `path`, with the right suffix and a free name; returns the actual path."""
    format = FORMATS[survey["format"][image]]
    if change != "renamed":
        format = "JPEG" if format == "JPEG" else "PNG"
    if FORMAT_OF_SUFFIX.get(path.suffix.lower()) != format:
        is_suffix = path.suffix.lower() in FORMAT_OF_SUFFIX
        path = path.with_name((path.stem if is_suffix else path.name) + _SUFFIX_OF_FORMAT[format])
    files.make_folder(path.parent)
    target = free_name(path)
    if change == "renamed":
        link_or_copy(Path(survey.name(image)), target)
        return target
    pixels, profile = _pixels_and_profile(survey, image)
    if format == "JPEG":
        Image.fromarray(pixels).save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=profile)
    else:
        Image.fromarray(pixels).save(target, "PNG", icc_profile=profile)
    return target


def _pixels_and_profile(survey: Survey, image: int) -> tuple[np.ndarray, bytes | None]:
    """The pixels as training sees them, but with the alpha channel, and the color profile if it is still valid."""

    def use(original: Image.Image) -> tuple[np.ndarray, bytes | None]:
        profile = original.info.get("icc_profile") if original.mode in ("RGB", "RGBA") else None
        pixels = pixels_of(original, _WHITE, with_alpha=original.has_transparency_data)
        return pixels, profile if isinstance(profile, bytes) else None

    try:
        return with_image(survey.read(image), use)
    except Unreadable as reason:
        raise StorageError(f"{survey.name(image)} has changed since it was examined: it {reason}.") from None
