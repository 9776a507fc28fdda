"""The metrics of the endpoint in Prometheus' format.

With several worker processes `PROMETHEUS_MULTIPROC_DIR` names an empty folder before they start; each process then
stores its values in files there, and any of them answers for all.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["Metrics"]


REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COMPUTE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of this process; `render` adds those of the other workers.

    Example:
        >>> metrics = Metrics()
        >>> metrics.observe_request("/invocations", 200, seconds=0.004, num_images=1)
        >>> "model_trainer_request_seconds_count 1.0" in metrics.render()[0].decode()
        True
    """

    def __init__(self) -> None:
        # A registry of its own, so that two servers in one process, and tests, do not share values.
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "model_trainer_requests", "Requests by route and status.", ("route", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "model_trainer_request_seconds",
            "Time from the headers of a request to its answer, of /invocations.",
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._batch_size = Histogram(
            "model_trainer_batch_size", "Images per batch.", buckets=BATCH_SIZES, registry=registry
        )
        self._compute_seconds = Histogram(
            "model_trainer_compute_seconds", "Time to compute a batch.", buckets=COMPUTE_SECONDS, registry=registry
        )
        images = Counter("model_trainer_images", "Images by result.", ("result",), registry=registry)
        self._images = {name: images.labels(name) for name in ("answered", "unreadable", "failed")}
        # "live": without the processes that have ended, whose files the supervisor removes.
        self._inside = Gauge(
            "model_trainer_images_inside",
            "Images of requests in progress.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._ready = Gauge(
            "model_trainer_ready",
            "1 if all workers are ready, else 0.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._info = Gauge(
            "model_trainer_model_info",
            "1 for the model that answers; 0 for one that has been replaced.",
            ("version", "engine", "precision"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._current_info: tuple[str, str, str] | None = None
        self._is_ready: bool | None = None

    def observe_request(self, route: str, status: int, seconds: float, num_images: int) -> None:
        """Counts an answered request.

        Args:
            route: the path of a route, never one that the client chose: each is a series of its own.
            num_images: images of the request that were answered.
        """
        self._requests.labels(route, str(status)).inc()
        if route == "/invocations":
            self._request_seconds.observe(seconds)
            if num_images:
                self._images["answered"].inc(num_images)

    def observe_rejected_images(self, num_unreadable: int, num_failed: int) -> None:
        """Counts images without an answer: those that cannot be read, and those of a request that failed."""
        if num_unreadable:
            self._images["unreadable"].inc(num_unreadable)
        if num_failed:
            self._images["failed"].inc(num_failed)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Counts a computed batch."""
        self._batch_size.observe(size)
        self._compute_seconds.observe(seconds)

    def change_images_in_progress(self, change: int) -> None:
        """Adds `change` to the number of images in progress."""
        self._inside.inc(change)

    def observe_model(self, is_ready: bool, version: str, engine: str, precision: str) -> None:
        """Sets the metrics of this process's model; costs nothing if they are unchanged."""
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            self._ready.set(is_ready)
        info = version, engine, precision
        if not version or info == self._current_info:
            return
        if self._current_info is not None:
            # Series cannot be removed with several processes; see prometheus_client's MetricWrapperBase.remove.
            self._info.labels(*self._current_info).set(0)
        self._info.labels(*info).set(1)
        self._current_info = info

    def render(self) -> tuple[bytes, str]:
        """Returns the body of `/metrics` and its content type."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
