"""The preview: augmented training images next to their originals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_trainer import ImageFolder, MixUp, RandomFlip, Run, preview
from model_trainer.errors import DataError
from model_trainer.report.preview import augmented_samples


def test_each_draw_is_an_augmentation_of_its_example(make_run: Callable[..., Run]) -> None:
    previews = augmented_samples(make_run(augment=(RandomFlip(vertical=True),)), count=6, draws=3)
    assert len({one.name for one in previews}) == 6
    for one in previews:
        assert one.label == Path(one.name).parent.name
        assert one.labels == (one.label,) * 3
        assert one.images.shape == (3, 16, 16, 3)
        # The noise of each drawn image differs, so its mean color identifies it.
        for image in one.images:
            np.testing.assert_allclose(image.mean(axis=(0, 1)), one.original.mean(axis=(0, 1)), atol=0.6)


def test_the_label_of_a_mixed_image_names_its_components(make_run: Callable[..., Run]) -> None:
    previews = augmented_samples(make_run(augment=(MixUp(alpha=1.0),)), count=6, draws=2)
    assert any("," in label for one in previews for label in one.labels)


def test_an_unreadable_image_does_not_end_the_preview(
    make_run: Callable[..., Run], draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = draw_folder(tmp_path / "train", 2)
    (folder / "red" / "0.png").write_bytes(b"nothing")
    run = make_run(train_data=ImageFolder(folder))
    (broken,) = (one for one in augmented_samples(run, count=6, draws=1) if one.original is None)
    assert broken.name.endswith("red/0.png")
    preview(run, tmp_path / "sheet.png", count=6, draws=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500
        assert sheet.height > 1000


def test_a_preview_that_is_not_an_image_file_is_refused(make_run: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="should be an image file such as preview.png"):
        preview(make_run(), tmp_path / "sheet.txt")
