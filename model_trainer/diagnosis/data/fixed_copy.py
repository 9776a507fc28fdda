"""Writes a copy of a data set in which is mended what can be: names, turns, colours, frames."""

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

LOG_NAME = "mended.csv"

_SUFFIX = {
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
    """Writes the data set to `folder`, whole or not at all, laid out as it is.

    Turned images are turned upright, CMYK and more than 8 bits become 8-bit RGB, of animations the first frame stays;
    a JPEG stays a JPEG, of quality 95, all others become PNG. A wrong suffix becomes the right one. All else, also
    what is no image, is the same file by a hard link, or a copy on another disk. Images that cannot be read are left
    out. `mended.csv` in `folder` has a line `from,to,change` for each image that is changed or left out.

    Returns:
        How many images were changed.

    Raises:
        DataError: `folder` is there and not empty.
        StorageError: it cannot be written.
    """
    if files.names_in(folder):
        raise DataError(f"--fix {folder} is not empty. Give a new folder: the mended copy is written there.")
    changes = _changes(survey)
    try:
        with filled_folder(folder) as aside:
            num_changed = _write(survey, changes, aside, folder, on_progress)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"The mended copy {folder} could not be written: {error}.") from error
    return num_changed


def _changes(survey: Survey) -> dict[int, str]:
    """What must be done to each image whose pixels must be written anew, or whose name is wrong."""
    fine = survey["state"] == State.FINE
    found: dict[int, list[str]] = {}
    for is_so, words in (
        (survey["orientation"] > 1, "turned upright"),
        (survey["is_cmyk"], "CMYK to RGB"),
        (survey["bits"] > 8, "to 8 bits"),
        (survey["is_animated"], "first frame only"),
    ):
        for image in map(int, np.flatnonzero(fine & is_so)):
            found.setdefault(image, []).append(words)
    renamed = {int(image): "renamed" for image in wrong_suffixes(survey) if fine[image]}
    return renamed | {image: ", ".join(words) for image, words in found.items()}


def _write(
    survey: Survey, changes: dict[int, str], aside: Path, folder: Path, on_progress: Callable[[int, int], None]
) -> int:
    rows: list[tuple[str, str, str]] = []
    for part in survey.parts:
        for path in (*part.others, *part.loose):
            link_or_copy(Path(path), aside / part.relative(path))
    for image in range(len(survey)):
        source = survey.name(image)
        relative = survey.find(image)[0].relative(source)
        if survey["state"][image]:
            rows.append((source, "", f"left out: {survey.reasons[image]}"))
        elif image not in changes:
            link_or_copy(Path(source), aside / relative)
        on_progress(image + 1, len(survey) + len(changes))
    # After the others, so that a new name never takes the place of a file that keeps its own.
    for done, (image, change) in enumerate(sorted(changes.items()), len(survey) + 1):
        source = survey.name(image)
        target = _changed(survey, image, change, aside / survey.find(image)[0].relative(source))
        rows.append((source, str(folder / target.relative_to(aside)), change))
        on_progress(done, len(survey) + len(changes))
    table = csv_lines([("from", "to", "change"), *rows])
    # Not appended: the data may hold such a file, which is here by a second name.
    files.write(aside / LOG_NAME, table.encode("utf-8", "surrogateescape"))
    return len(changes)


def _changed(survey: Survey, image: int, change: str, wanted: Path) -> Path:
    format = FORMATS[survey["format"][image]]
    if change != "renamed":
        format = "JPEG" if format == "JPEG" else "PNG"
    if FORMAT_OF_SUFFIX.get(wanted.suffix.lower()) != format:
        is_suffix = wanted.suffix.lower() in FORMAT_OF_SUFFIX
        wanted = wanted.with_name((wanted.stem if is_suffix else wanted.name) + _SUFFIX[format])
    files.make_folder(wanted.parent)
    target = free_name(wanted)
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
    """The pixels as training sees them, alpha kept where there is one, and the colour profile where it still fits."""

    def use(original: Image.Image) -> tuple[np.ndarray, bytes | None]:
        profile = original.info.get("icc_profile") if original.mode in ("RGB", "RGBA") else None
        pixels = pixels_of(original, _WHITE, with_alpha=original.has_transparency_data)
        return pixels, profile if isinstance(profile, bytes) else None

    try:
        return with_image(survey.read(image), use)
    except Unreadable as reason:
        raise StorageError(f"{survey.name(image)} could be read before and is now: {reason}.") from None
