"""Metrics of the server, read with Prometheus' own parser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_trainer.serving.answers import Busy
from model_trainer.serving.http.metrics import Metrics

PREFIX = "model_trainer_"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Sample values by `(name without prefix, *label values)`, the latter in alphabetical order of the labels."""
    return {
        (sample.name.removeprefix(PREFIX), *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_status(client, jpegs) -> None:
    client.send(jpegs[0])
    client.send(jpegs[0])
    client.send(b"text")
    for path in ("/ping", "/secret-1", "/secret-2"):
        client("GET", path)
    text = client("GET", "/metrics").text
    values = samples(text)
    assert values["requests_total", "/invocations", "200"] == 2
    assert values["requests_total", "/invocations", "400"] == 1
    assert values["requests_total", "/ping", "200"] == 1
    assert values["requests_total", "other", "404"] == 2
    assert values["request_seconds_count",] == 3
    assert "secret" not in text


def test_images_are_counted_by_result(client, service, jpegs) -> None:
    lines = [json.dumps(each) for each in ({"b64": "dGV4dA=="}, {"b64": "#"})]
    client.send("\n".join(lines), "application/jsonlines")
    client("POST", "/invocations", files=[("a", ("a", data)) for data in jpegs])
    service.error = Busy()
    client.send(jpegs[0])
    values = samples(client("GET", "/metrics").text)
    results = {name: values["images_total", name] for name in ("answered", "unreadable", "failed")}
    assert results == {"answered": 4, "unreadable": 2, "failed": 1}
    assert values["images_inside",] == 0


def test_images_in_progress_are_counted(client, service, jpegs, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = []
    compute = service.probabilities

    async def record_and_compute(images):
        inside.append(samples(client.metrics.render()[0].decode())["images_inside",])
        return await compute(images)

    monkeypatch.setattr(service, "probabilities", record_and_compute)
    client("POST", "/invocations", files=[("a", ("a", data)) for data in jpegs])
    assert inside == [4]


def test_batches_are_observed() -> None:
    metrics = Metrics()
    metrics.observe_batch(8, 0.25)
    metrics.observe_batch(3, 0.5)
    values = samples(metrics.render()[0].decode())
    assert (values["batch_size_sum",], values["batch_size_count",]) == (11, 2)
    assert values["batch_size_bucket", "4.0"] == 1
    assert values["compute_seconds_sum",] == 0.75


def test_the_model_and_its_readiness_are_reported(client, service) -> None:
    client("GET", "/ping")
    assert samples(client("GET", "/metrics").text)["model_info", "keras", "float32", "1a2b3c4d"] == 1
    service.model_version, service.status = "5e6f7a8b", "failing"
    client("GET", "/ping")
    values = samples(client("GET", "/metrics").text)
    assert values["model_info", "keras", "float32", "1a2b3c4d"] == 0
    assert values["model_info", "keras", "float32", "5e6f7a8b"] == 1
    assert values["ready",] == 0


def test_two_servers_in_one_process_have_separate_metrics(make_client, jpegs) -> None:
    first, second = make_client(), make_client()
    first.send(jpegs[0])
    assert ("requests_total", "/invocations", "200") not in samples(second("GET", "/metrics").text)


def test_metrics_have_the_content_type_of_the_text_format(client) -> None:
    assert client("GET", "/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


# Three workers, of which the last is marked as dead; then the parent prints the metrics of all.
PROGRAM = """
import os, sys
from prometheus_client.multiprocess import mark_process_dead
from model_trainer.serving.http.metrics import Metrics
def work(number):
    metrics = Metrics()
    metrics.observe_model(number == 1, "v1", "keras", "float32")
    metrics.observe_model(number == 1, "v2", "keras", "float32")
    metrics.change_images_in_progress(number)
    for _ in range(number):
        metrics.observe_request("/invocations", 200, 0.004, 2)
        metrics.observe_batch(8, 0.5)
workers = []
for number in (1, 2, 4):
    worker = os.fork()
    if not worker:
        work(number)
        os._exit(0)
    os.waitpid(worker, 0)
    workers.append(worker)
mark_process_dead(workers[2])
sys.stdout.buffer.write(Metrics().render()[0])
"""


@pytest.mark.long
def test_with_several_processes_each_reports_the_metrics_of_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    values = samples(done.stdout)
    assert values["requests_total", "/invocations", "200"] == 7  # counts of ended workers remain
    assert values["images_total", "answered"] == 14
    assert values["request_seconds_count",] == 7
    assert values["batch_size_sum",] == 56
    assert values["images_inside",] == 3  # of the live workers
    assert values["ready",] == 0  # one of them is not ready
    assert [values["model_info", "keras", "float32", version] for version in ("v1", "v2")] == [0, 1]
