"""The batcher: which images form a batch, and what happens to images that cannot be decoded or predicted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from model_trainer.errors import DataError
from model_trainer.serving.answers import BadImage, InferenceFailed, NotReady
from model_trainer.serving.batcher import Batcher
from model_trainer.serving.jobs import ConcurrentCompute

SECONDS = 30.0
IMAGE = np.full((1, 1, 1), 7, np.uint8)


class Network:
    """A stand-in for decoder and network; each can be blocked until an event is set."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: list[int] = []
        self.is_computing, self.may_compute = threading.Event(), threading.Event()
        self.is_decoding, self.may_decode = threading.Event(), threading.Event()
        self.may_compute.set()
        self.may_decode.set()
        self.error: Exception | None = None

    def decode(self, data: bytes) -> np.ndarray:
        self.is_decoding.set()
        assert self.may_decode.wait(SECONDS)
        self.threads.append(threading.get_ident())
        if data == b"bad":
            raise DataError("is not an image")
        return np.full((1, 1, 1), data[0], np.uint8)

    def compute(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        self.threads.append(threading.get_ident())
        self.is_computing.set()
        assert self.may_compute.wait(SECONDS)
        if self.error is not None:
            raise self.error
        values = images.reshape(len(images), 1).astype(np.float32)
        return np.where(values == 255, np.nan, values)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def make(network: Network) -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def make_batcher(**changes: Any) -> Batcher:
        options: dict[str, Any] = {"max_batch_size": 8, "max_delay_seconds": SECONDS, "num_decoders": 2}
        made.append(Batcher(network.decode, network.compute, **(options | changes)))
        return made[-1]

    yield make_batcher
    network.may_compute.set()
    network.may_decode.set()
    for batcher in made:
        batcher.close()


def run(body: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(SECONDS):
            await body

    asyncio.run(limited())


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, SECONDS)


def test_a_single_image_does_not_wait_for_others(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        job = make(max_delay_seconds=1e6).submit([b"\x05"])
        await job.future
        assert [row.tolist() for row in job.rows] == [[5.0]]

    run(body())


def test_a_single_image_is_predicted_by_the_thread_that_decoded_it(
    network: Network, make: Callable[..., Batcher]
) -> None:
    async def body() -> None:
        await make().submit([b"\x05"]).future

    run(body())
    assert len(network.threads) == 2
    assert len(set(network.threads)) == 1


def test_images_that_arrive_during_a_batch_form_the_next_one(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make()
        network.may_compute.clear()
        first = batcher.submit([IMAGE])
        await wait_for(network.is_computing)
        others = [batcher.submit([IMAGE]) for _ in range(3)]
        network.may_compute.set()
        for job in (first, *others):
            await job.future

    run(body())
    assert network.sizes == [1, 3]


def test_a_job_is_divided_into_batches_of_at_most_max_batch_size(
    network: Network, make: Callable[..., Batcher]
) -> None:
    async def body() -> None:
        job = make(max_batch_size=2).submit([np.full((1, 1, 1), n, np.uint8) for n in range(5)])
        await job.future
        assert [row.tolist() for row in job.rows] == [[0.0], [1.0], [2.0], [3.0], [4.0]]

    run(body())
    assert network.sizes == [2, 2, 1]


def test_a_batch_waits_for_an_image_that_is_being_decoded(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make()
        network.may_decode.clear()
        slow = batcher.submit([b"\x05"])
        await wait_for(network.is_decoding)
        quick = batcher.submit([IMAGE])
        network.may_decode.set()
        await asyncio.gather(slow.future, quick.future)

    run(body())
    assert network.sizes == [2]


def test_a_batch_does_not_wait_longer_than_max_delay(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make(max_delay_seconds=0.001)
        network.may_decode.clear()
        slow = batcher.submit([b"\x05"])
        await wait_for(network.is_decoding)
        await batcher.submit([IMAGE]).future  # while the other is still being decoded
        assert not slow.future.done()
        network.may_decode.set()
        await slow.future

    run(body())
    assert network.sizes == [1, 1]


def test_an_unreadable_image_does_not_affect_the_others(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        job = make().submit([b"\x05", b"bad", IMAGE])
        await job.future
        assert job.rows[1] == BadImage("is not an image")
        assert [job.rows[0].tolist(), job.rows[2].tolist()] == [[5.0], [7.0]]

    run(body())


def test_a_failure_affects_only_its_own_batch(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make()
        network.error = RuntimeError("out of memory")
        with pytest.raises(InferenceFailed):
            await batcher.submit([IMAGE]).future
        assert batcher.has_failed
        network.error = None
        await batcher.submit([IMAGE]).future
        assert not batcher.has_failed

    run(body())


def test_a_nan_probability_fails_only_its_own_image(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make()
        network.may_compute.clear()
        first = batcher.submit([IMAGE])
        await wait_for(network.is_computing)
        good, bad = batcher.submit([IMAGE]), batcher.submit([np.full((1, 1, 1), 255, np.uint8)])
        network.may_compute.set()
        await asyncio.gather(first.future, good.future)
        with pytest.raises(InferenceFailed):
            await bad.future
        assert not batcher.has_failed

    run(body())


def test_images_of_an_abandoned_job_are_not_computed(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make()
        network.may_compute.clear()
        first = batcher.submit([IMAGE])
        await wait_for(network.is_computing)
        gone, last = batcher.submit([IMAGE] * 5), batcher.submit([IMAGE])
        batcher.abandon(gone)
        network.may_compute.set()
        await asyncio.gather(first.future, last.future)

    run(body())
    assert network.sizes == [1, 1]


def test_an_urgent_image_is_computed_before_waiting_ones(network: Network, make: Callable[..., Batcher]) -> None:
    async def body() -> None:
        batcher = make(max_batch_size=1)
        network.may_compute.clear()
        first = batcher.submit([IMAGE])
        await wait_for(network.is_computing)
        waiting = batcher.submit([IMAGE])
        urgent = batcher.submit([IMAGE], is_urgent=True)
        order: list[str] = []
        waiting.future.add_done_callback(lambda future: order.append("waiting"))
        urgent.future.add_done_callback(lambda future: order.append("urgent"))
        network.may_compute.set()
        await asyncio.gather(first.future, waiting.future, urgent.future)
        assert order == ["urgent", "waiting"]

    run(body())


def test_after_close_accepted_jobs_are_finished_and_new_ones_are_refused(
    network: Network, make: Callable[..., Batcher]
) -> None:
    async def body() -> None:
        batcher = make()
        network.may_decode.clear()
        job = batcher.submit([b"\x05"] * 4)
        batcher.close()
        with pytest.raises(NotReady):
            batcher.submit([IMAGE])
        network.may_decode.set()
        await job.future

    run(body())


def test_metrics_that_cannot_be_recorded_do_not_stop_the_threads(
    network: Network, make: Callable[..., Batcher]
) -> None:
    def fail(size: int, seconds: float) -> None:
        raise OSError("no space left")

    async def body() -> None:
        batcher = make(on_batch=fail, num_decoders=1)
        for _ in range(5):
            await batcher.submit([b"\x05"]).future

    run(body())


def test_several_batches_are_computed_at_the_same_time(make: Callable[..., Batcher], network: Network) -> None:
    two_batches = threading.Barrier(2)

    def compute(images: np.ndarray) -> np.ndarray:
        two_batches.wait(SECONDS)
        return network.compute(images)

    def alone(images: np.ndarray) -> np.ndarray:
        raise AssertionError("two images are in progress")

    async def body() -> None:
        batcher = make(concurrent=ConcurrentCompute(compute, alone, batch_size=1, num_batches=2))
        job = batcher.submit([IMAGE, IMAGE + 1])
        await job.future
        assert [float(row[0]) for row in job.rows] == [7, 8]
        assert network.sizes == [1, 1]

    run(body())


def test_a_single_image_is_computed_on_all_cores(make: Callable[..., Batcher], network: Network) -> None:
    alone: list[int] = []

    def compute_alone(images: np.ndarray) -> np.ndarray:
        alone.append(len(images))
        return np.ones((1, 1), np.float32)

    async def body() -> None:
        batcher = make(concurrent=ConcurrentCompute(network.compute, compute_alone, batch_size=4, num_batches=2))
        for image in (IMAGE, b"\x07"):
            await batcher.submit([image]).future
        await batcher.submit([IMAGE, IMAGE]).future
        assert alone == [1, 1]
        assert network.sizes == [2]

    run(body())
