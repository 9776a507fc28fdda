"""Attribution maps as pictures for a client."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from model_trainer.evaluation.attribution import GradCAM, overlay

__all__ = ["attribution_png"]

MIN_SIDE = 448  # pixels of the longer side: small inputs would be a blur of a few pixels on a page


def attribution_png(cam: GradCAM, image: np.ndarray, class_index: int) -> bytes:
    """Draws the regions of an image that support a class.

    Args:
        cam: explains the model.
        image: uint8 `(height, width, channels)`, cropped and resized for the model, before its preprocessing.
        class_index: the class that is explained.

    Returns:
        A PNG of the image under its map; an image whose longer side is below 448 pixels is enlarged to that.
    """
    (attribution,) = cam(image[None], np.array([class_index]))
    drawn = overlay(_enlarged(image), attribution)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG", compress_level=1)  # the time counts more than the size
    return file.getvalue()


def _enlarged(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = MIN_SIDE / max(height, width)
    if scale <= 1:
        return image
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    resized = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(*resized.size[::-1], image.shape[-1])
