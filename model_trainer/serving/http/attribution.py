"""`POST /attribution?label=NAME`: which regions of an image support a label, as a PNG."""

from __future__ import annotations

from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from model_trainer.errors import DataError
from model_trainer.evaluation.attribution import NoFeatureMap
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.answers import NotReady

__all__ = ["Explainer", "attribution"]

IMAGE_TYPES = ("application/octet-stream", "application/x-image")


class Explainer(Protocol):
    """The part of the service that explains predictions."""

    @property
    def trained(self) -> TrainedModel | None: ...

    async def attribution(self, image: bytes, class_index: int | None) -> bytes: ...


async def attribution(request: Request, service: Explainer) -> Response:
    """Answers with the attribution map of the image in the body, drawn over the image as it is cropped for the network.

    Without `label` the most probable class is explained.

    Raises:
        HTTPException: 400 if the label is unknown or the image cannot be read, 415 if the body is not a single image,
            501 if the network has no attribution maps.
        NotReady, Busy, TooSlow, InferenceFailed: as the service raises them.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type.startswith("image/") and media_type not in IMAGE_TYPES:
        raise HTTPException(415, f"Content-Type should be image/* or {' or '.join(IMAGE_TYPES)}, got '{media_type}'.")
    image = await request.body()
    trained = service.trained  # after the body: with `--reload` another model may have been loaded meanwhile
    if trained is None:
        raise NotReady
    label = request.query_params.get("label")
    if label is not None and label not in trained.classes:
        raise HTTPException(400, f"'{label[:100]}' is not a label of this model. GET /model lists them.")
    class_index = None if label is None else trained.classes.index(label)
    try:
        png = await service.attribution(image, class_index)
    except NoFeatureMap as error:
        raise HTTPException(501, str(error)) from error
    except DataError as error:
        raise HTTPException(400, f"The image cannot be read: it {error}.") from error
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})
