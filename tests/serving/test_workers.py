"""Several workers on one port, as real processes."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_trainer.serving import workers
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import Model, bind

READY = r"Worker \d is ready \(process (\d+)\)"


@pytest.mark.slow
def test_two_workers_answer_are_restarted_and_stop_cleanly(
    start_endpoint: Callable[..., Any], encode: Callable[..., bytes], tmp_path: Path
) -> None:
    endpoint = start_endpoint("--workers", "2", TMPDIR=str(tmp_path))
    first, second = endpoint.wait_for(READY, 2)
    assert httpx.get(f"{endpoint.url}/ping").status_code == 200
    for _ in range(10):
        assert endpoint.predict(encode()).status_code == 200
    (metrics,) = tmp_path.glob("model-trainer-metrics-*")
    counts = [line for line in httpx.get(f"{endpoint.url}/metrics").text.splitlines() if "images_total" in line]
    assert 'model_trainer_images_total{result="answered"} 10.0' in counts

    os.kill(int(first), signal.SIGKILL)  # the other worker answers meanwhile
    endpoint.wait_for("Worker 0 ended with -9; it is started again")
    assert endpoint.predict(encode()).status_code == 200
    assert endpoint.wait_for(READY, 3)[2] not in (first, second)

    endpoint.process.terminate()
    assert endpoint.wait() == 0
    assert not metrics.exists()
    assert "Traceback" not in endpoint.messages
    assert endpoint.messages.count("Stopping when the requests in progress are answered") == 1
    for number in endpoint.wait_for(READY, 3):
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


@pytest.mark.slow
def test_workers_end_with_their_parent(start_endpoint: Callable[..., Any]) -> None:
    endpoint = start_endpoint("--workers", "2")
    endpoint.wait_for(READY, 2)
    endpoint.process.kill()
    endpoint.wait()  # until all processes that write to its standard error have ended
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{endpoint.url}/ping")


@pytest.mark.slow
def test_a_model_that_workers_cannot_load_gives_one_message_and_exit_code_2(
    start_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "pets.h5").write_bytes(b"no model")
    endpoint = start_endpoint("--workers", "2", model=tmp_path / "pets.h5")
    assert endpoint.wait() == 2
    assert endpoint.messages.count("Error: ") == 1
    assert "Traceback" not in endpoint.messages


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_ctrl_c_twice(group: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(workers, "_start_missing", press_ctrl_c_twice)
    with bind("127.0.0.1", 0) as listener, pytest.raises(KeyboardInterrupt):
        workers.run_workers(Model("pets.h5"), ServeOptions(num_workers=2), listener)
    assert not list(tmp_path.iterdir())
