"""A service with one model: its queue, limits and health, with a real small network."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_trainer.errors import DataError, ModelFileError
from model_trainer.model_files.load import load_model
from model_trainer.pipeline.image import read_image
from model_trainer.serving.answers import BadImage, Busy, InferenceFailed, NotReady, TooSlow
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.service import Service
from model_trainer.specs import ModelSpec

SECONDS = 30.0
Encode = Callable[..., bytes]
SPEC = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
CLASSES = ("cat", "dog", "owl")
OPTIONS = ServeOptions(max_batch_size=2, num_decoders=1, max_waiting=2, engine="keras")


@pytest.fixture(scope="module")
def service(pets: Path) -> Service:
    """A loaded service; tests must not close it."""
    service = Service(pets, OPTIONS, spec=SPEC, classes=CLASSES)
    service.load()
    return service


@pytest.fixture
def held(service: Service, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Blocks the network until the event is set."""
    event = threading.Event()
    loaded, batcher = service._current

    def wait_and_compute(images: np.ndarray) -> np.ndarray:
        assert event.wait(SECONDS)
        return loaded.compute(images)

    monkeypatch.setattr(batcher, "_compute", wait_and_compute)
    return event


def run(body: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(SECONDS):
            return await body

    return asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def is_computing(service: Service) -> bool:
    return service._current[1].batch_seconds > 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_probabilities_are_those_of_predict(
    service: Service, pets: Path, tmp_path: Path, kind: str, encode: Encode
) -> None:
    (tmp_path / "photo").write_bytes(encode(kind))
    trained = load_model(pets, spec=SPEC, classes=CLASSES)
    expected = trained.probabilities(read_image(tmp_path / "photo", trained.spec)[None])[0]
    results = run(service.probabilities([encode(kind)]))
    np.testing.assert_allclose(results.rows[0], expected, rtol=1e-5)
    assert results.model.classes == CLASSES
    assert results.compute_seconds > 0


def test_arrays_and_bad_images_keep_their_order(service: Service, encode: Encode) -> None:
    array = np.zeros((16, 16, 3), np.uint8)
    results = run(service.probabilities([array, b"nothing", encode()]))
    assert results.rows[1] == BadImage("is not an image")
    np.testing.assert_allclose([row.sum() for row in (results.rows[0], results.rows[2])], 1.0, rtol=1e-5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_an_image_with_too_many_pixels_is_not_decoded(
    service: Service, kind: str, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    loaded = dataclasses.replace(service.loaded, max_pixels=5_000)
    monkeypatch.setattr(service._current[1], "_decode", loaded.decode)
    results = run(service.probabilities([encode(kind, (100, 51)), encode(kind, (100, 50))]))
    assert results.rows[0] == BadImage("has 5,100 pixels, more than the limit of 5,000 pixels")
    assert not isinstance(results.rows[1], BadImage)


def test_a_service_without_a_loaded_model_is_not_ready(pets: Path, encode: Encode) -> None:
    service = Service(pets, OPTIONS, spec=SPEC, classes=CLASSES)
    with pytest.raises(NotReady):
        run(service.probabilities([encode()]))
    assert service.status == "starting"
    assert not run(service.is_healthy())
    service.close()


def test_a_damaged_model_raises_model_file_error(tmp_path: Path) -> None:
    (tmp_path / "pets.h5").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        Service(tmp_path / "pets.h5", OPTIONS, spec=SPEC, classes=CLASSES).load()


def test_images_beyond_max_waiting_are_refused_until_others_are_answered(
    service: Service, held: threading.Event, encode: Encode
) -> None:
    async def body() -> None:
        inside = [asyncio.create_task(service.probabilities([encode()])) for _ in range(2)]
        await until(lambda: service.num_in_progress == 2)
        with pytest.raises(Busy) as refused:
            await service.probabilities([encode()])
        assert refused.value.retry_after_seconds >= 1
        held.set()
        await asyncio.gather(*inside)
        assert service.num_in_progress == 0
        await service.probabilities([encode()])

    run(body())


def test_a_single_request_may_exceed_max_waiting(service: Service, encode: Encode) -> None:
    assert len(run(service.probabilities([encode()] * 5)).rows) == 5


def test_a_cancelled_request_leaves_the_queue_and_is_not_computed(
    service: Service, held: threading.Event, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    async def body() -> None:
        batcher = service._current[1]
        sizes: list[int] = []
        monkeypatch.setattr(batcher, "_on_batch", lambda size, seconds: sizes.append(size))
        first = asyncio.create_task(service.probabilities([encode()]))
        await until(lambda: is_computing(service))
        gone = asyncio.create_task(service.probabilities([encode()]))
        await until(lambda: service.num_in_progress == 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert service.num_in_progress == 1
        held.set()
        await first
        await service.probabilities([encode()])
        assert set(sizes) == {1}

    run(body())


def test_a_request_that_takes_too_long_is_cancelled_and_marks_the_service_as_failing(
    service: Service, held: threading.Event, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    async def body() -> None:
        first = asyncio.create_task(service.probabilities([encode()]))
        await until(lambda: is_computing(service))
        monkeypatch.setattr(service, "options", OPTIONS.changed("request_seconds", 0.001))
        with pytest.raises(TooSlow):
            await service.probabilities([encode()])
        assert service.num_in_progress == 1
        await until(lambda: service.status == "failing")
        assert not await service.is_healthy()
        held.set()
        await first
        assert await service.is_healthy()

    run(body())


def test_a_failed_service_is_healthy_again_when_it_can_predict_a_black_image(
    service: Service, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    batcher = service._current[1]

    def fail(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("the GPU is lost")

    async def body() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(batcher, "_compute", fail)
            with pytest.raises(InferenceFailed):
                await service.probabilities([encode()])
            assert service.status == "failing"
            assert not await service.is_healthy()
        assert await service.is_healthy()
        assert service.status == "ready"

    run(body())


def test_a_new_model_answers_new_requests_and_the_old_one_those_in_progress(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Encode, save_pets: Callable[..., Path]
) -> None:
    copy = tmp_path / "pets.h5"
    copy.write_bytes(pets.read_bytes())
    service = Service(copy, OPTIONS, spec=SPEC, classes=CLASSES)
    service.load()
    old_model, old_version = service.trained, service.model_version
    event = threading.Event()
    compute = service.loaded.compute
    batcher = service._current[1]
    monkeypatch.setattr(batcher, "_compute", lambda images: compute(images) if event.wait(SECONDS) else images)

    async def body() -> None:
        inside = asyncio.create_task(service.probabilities([encode()]))
        await until(lambda: is_computing(service))
        save_pets(copy, 2)
        await asyncio.to_thread(service.load)
        new = await service.probabilities([encode()])
        event.set()
        old = await inside
        assert old.model is old_model
        assert new.model is service.trained is not old_model
        assert service.model_version != old_version
        assert np.abs(old.rows[0] - new.rows[0]).max() > 1e-3

    run(body())
    service.close()


def test_an_attribution_map_of_invalid_data_is_refused_with_the_reason(service: Service) -> None:
    with pytest.raises(DataError, match="^is not an image$"):
        run(service.attribution(b"nothing", None))
    assert service.num_in_progress == 0
