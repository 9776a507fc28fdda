"""A contact sheet of original training images next to their augmented versions, which the model will see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model_trainer.errors import DataError, StorageError
from model_trainer.images.pillow import decode_with_pillow
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.dataset import Pipeline
from model_trainer.run.run import Run
from model_trainer.sources.examples import Examples
from model_trainer.sources.labels.wording import label_text
from model_trainer.storage import files

__all__ = ["Seen", "augmented_samples", "draw_preview"]

MAX_SIDE = 256  # pixels, of an original image on the sheet


@dataclass(frozen=True)
class Seen:
    """One training example and its augmented versions.

    Attributes:
        name: name of the image.
        label: the label as text.
        original: uint8 `(height, width, 3)`, upright and reduced in size; None if it cannot be read.
        crop: crop region `(top, left, height, width)` in pixels of `original`; None for the whole image.
        images: uint8 `(draws, height, width, channels)`, augmented images before preprocessing.
        labels: the label of each augmented image as text; MixUp and CutMix change labels.
    """

    name: str
    label: str
    original: np.ndarray | None
    crop: tuple[float, float, float, float] | None
    images: np.ndarray
    labels: tuple[str, ...]


def augmented_samples(run: Run, count: int = 8, draws: int = 4, examples: Examples | None = None) -> list[Seen]:
    """Augments some examples of the run's training data.

    The augmented images come from the training pipeline with the run's seed. They differ from those of the first
    epoch, because only the chosen examples are in the pipeline.

    Args:
        run: the run.
        count: number of examples, chosen at random with the run's seed.
        draws: number of augmented images for each example.
        examples: the training data, if they have been read already.

    Raises:
        ModelTrainerError: the run's data cannot be read.
    """
    examples = run.train_data.read() if examples is None else examples
    run.task.check(examples)
    chosen = np.sort(np.random.default_rng(run.training.seed).permutation(len(examples))[:count])
    repeated = examples.take(np.repeat(chosen, draws))
    bad_images = BadImages(len(repeated), 1.0, len(repeated))
    pipeline = Pipeline(repeated, run.spec, len(repeated), bad_images, augment=run.augment, seed=run.training.seed)
    batch = next(iter(bad_images.checked(pipeline.training(epochs=1))))
    targets = run.task.targets(batch.targets, len(examples.classes)).numpy()
    order = np.argsort(pipeline.shown(1))
    images, targets = batch.inputs.numpy()[order], targets[order]
    seen = []
    for number, index in enumerate(chosen):
        drawn = slice(number * draws, (number + 1) * draws)
        original, scale = _original(examples, int(index))
        crop = None
        if examples.crops is not None and examples.crops[index][2] > 0:
            crop = tuple(float(edge) * scale for edge in examples.crops[index])
        target = examples.take(np.array([index])).label_rows().dense(len(examples.classes))[0]
        seen.append(
            Seen(
                name=examples.name(int(index)),
                label=label_text(target, examples.classes),
                original=original,
                crop=crop,  # type: ignore[arg-type]  # four edges
                images=images[drawn],
                labels=tuple(label_text(each, examples.classes) for each in targets[drawn]),
            )
        )
    return seen


def draw_preview(run: Run, path: str | Path, count: int = 8, draws: int = 4) -> None:
    """Draws the contact sheet of `run` into the image file `path`.

    Args:
        run, count, draws: see `augmented_samples`.
        path: the file, with the suffix of an image or PDF.

    Raises:
        DataError: `path` does not have the suffix of an image.
        ModelTrainerError: the run's data cannot be read.
    """
    from matplotlib.figure import Figure  # not pyplot, which would look for a display
    from matplotlib.patches import Rectangle

    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise DataError(f"The preview should be an image file such as preview.png, got {path}.")
    seen = augmented_samples(run, count, draws)
    figure = Figure(figsize=(2.1 * (1 + draws), 2.4 * len(seen)), layout="constrained")
    figure.suptitle(f"{run.name}: originals, and {draws} augmented versions that the model will see", fontsize=11)
    axes = figure.subplots(len(seen), 1 + draws, squeeze=False)
    for each in axes.ravel():
        each.set_axis_off()
    for row, example in zip(axes, seen, strict=True):
        row[0].set_title(f"{_short(example.label)}\n{_short(Path(example.name).name)}", fontsize=8, loc="left")
        if example.original is None:
            row[0].text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8)
            continue
        row[0].imshow(example.original)
        if example.crop is not None:
            top, left, height, width = example.crop
            row[0].add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="#e4572e", linewidth=1.5))
        for cell, image, label in zip(row[1:], example.images, example.labels, strict=True):
            cell.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            if label != example.label:
                cell.set_title(_short(label), fontsize=7, loc="left")
    with files.atomic_write(path) as partial:
        figure.savefig(partial, dpi=100)


def _original(examples: Examples, index: int) -> tuple[np.ndarray | None, float]:
    """The image with sides of at most `MAX_SIDE` pixels, and its scale factor, at most 1; None if it is unreadable."""
    try:
        pixels = decode_with_pillow(examples.images.read(int(examples.rows[index])), (255, 255, 255), with_alpha=False)
    except StorageError:
        raise
    except OSError:
        pixels = None
    if pixels is None:
        return None, 1.0
    scale = min(1.0, MAX_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size)), scale


def _short(text: str, max_characters: int = 34) -> str:
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"
