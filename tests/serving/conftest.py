"""A small model, images, and real endpoints in separate processes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from PIL import Image

from model_trainer.specs import ModelSpec
from model_trainer.testing import small_backbone

SECONDS = 120.0
IMAGE_TYPE = {"Content-Type": "image/png"}


def _save_pets(path: Path, seed: int = 1) -> Path:
    keras.utils.set_random_seed(seed)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    partial = path.with_name(f"partial-{path.name}")
    keras.Sequential([small_backbone((16, 16, 3)), *head]).save(partial)
    partial.replace(path)
    return path


def _encode(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def save_pets() -> Callable[..., Path]:
    """Saves a network for 16 x 16 pixels and three classes, by an atomic rename."""
    return _save_pets


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Returns an encoded image of noise."""
    return _encode


@pytest.fixture(scope="session")
def pets_spec() -> ModelSpec:
    return ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a saved network; tests must not change it."""
    return _save_pets(tmp_path_factory.mktemp("pets") / "pets.h5")


class Endpoint:
    """`model-trainer serve` as a process."""

    def __init__(self, folder: Path, model: Path, *options: str, **environment: str) -> None:
        (folder / "spec.json").write_text(
            '{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}'
        )
        command = [
            sys.executable, "-m", "model_trainer", "serve", str(model), "--spec", str(folder / "spec.json"),
            "--classes", "cat,dog,owl", "--engine", "keras", "--port", "0", *options,
        ]  # fmt: skip
        # In its own process group, to which tests send signals as a terminal does.
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._messages = ""
        self._news = threading.Condition()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._messages += line
                self._news.notify_all()
        with self._news:
            self._messages += "(end)\n"
            self._news.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Waits until the pattern occurs `count` times in the messages of the process; returns all matches."""
        with self._news:
            is_in_time = self._news.wait_for(
                lambda: len(re.findall(pattern, self._messages)) >= count or "(end)" in self._messages, SECONDS
            )
            matches = re.findall(pattern, self._messages)
        assert is_in_time, f"timed out: {self._messages}"
        assert len(matches) >= count, self._messages
        return matches

    @property
    def url(self) -> str:
        return self.wait_for(r"Ready after [\d.]+ s: (\S+)/\n")[0]

    @property
    def messages(self) -> str:
        with self._news:
            return self._messages

    def wait(self) -> int:
        """Waits for the end of the process; returns its exit code."""
        code = self.process.wait(SECONDS)
        self._reading.join(SECONDS)
        return code

    def predict(self, image: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/invocations", content=image, headers=IMAGE_TYPE, timeout=SECONDS)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="module")
def start_endpoint(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Endpoint]]:
    """Starts `model-trainer serve` with the given options."""
    started: list[Endpoint] = []

    def start(*options: str, model: Path = pets, **environment: str) -> Endpoint:
        started.append(Endpoint(tmp_path_factory.mktemp("endpoint"), model, *options, **environment))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.close()
