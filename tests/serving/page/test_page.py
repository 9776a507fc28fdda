"""The page of the endpoint in headless Chromium, with the real application and a fake service."""

from __future__ import annotations

import base64
import io
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from model_trainer import Classification, ModelSpec, MultiLabel
from model_trainer.errors import DataError
from model_trainer.evaluation.attribution import NoFeatureMap
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.answers import BadImage, Busy, Results
from model_trainer.serving.options import ServeOptions
from model_trainer.tasks.task import Task

pytestmark = pytest.mark.long

SPEC = ModelSpec(target_size=[32, 32, 3])
PETS = ("cat", "dog", "horse", "newt", "owl", "rat", "yak")
ODDS = np.array([0.02, 0.5, 0.25, 0.12, 0.08, 0.03, 0.0], np.float32)
WEIRD = ("<img src=x onerror=alert(1)>", "x" * 320, "a name " * 43, "\u202egnp.exe")


def png(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


class FakeService:
    """A stand-in for `Service` that gives each image the same probabilities and records the images."""

    def __init__(self, classes: tuple[str, ...], row: np.ndarray, task: Task, thresholds: Any = None) -> None:
        self.trained = TrainedModel(None, SPEC, task, classes, Path("model_max_acc.hdf5"), thresholds)
        self.status, self.model_version = "ready", "0123abcd"
        self.images: list[bytes] = []
        self.explained: list[int | None] = []
        self.busy_times = 0
        self.has_maps = True
        self._row = row

    async def probabilities(self, images: list[Any]) -> Results:
        if self.busy_times:
            self.busy_times -= 1
            raise Busy(1)
        self.images += images
        rows = [self._row if each.startswith(b"\x89PNG") else BadImage("is not an image") for each in images]
        return Results(self.trained, rows)

    async def attribution(self, image: bytes, class_index: int | None) -> bytes:
        if not self.has_maps:
            raise NoFeatureMap("flat has no attribution maps.")
        if not image.startswith(b"\x89PNG"):
            raise DataError("is not an image")
        self.explained.append(class_index)
        return png("yellow")

    async def is_healthy(self) -> bool:
        return True


def make_app(service: FakeService, options: ServeOptions) -> Any:
    app = pytest.importorskip("model_trainer.serving.http.app")
    metrics = pytest.importorskip("model_trainer.serving.http.metrics")
    return app.make_app(service, options, metrics.Metrics())


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off"))
    sock = server.config.bind_socket()
    sock.listen()  # so that a client may connect before the thread runs
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves an application and returns its address."""
    with ExitStack() as stack:

        def start(service: FakeService, **options: Any) -> str:
            return stack.enter_context(serving(make_app(service, ServeOptions(**options))))

        yield start


@pytest.fixture
def pets() -> FakeService:
    return FakeService(PETS, ODDS, Classification())


# Helpers in the page: make a file, dispatch a drop or paste event with it, query texts and visibility.
SCRIPT = """
window.fileOf = (name, type, text) =>
  new File([Uint8Array.from(atob(text), (each) => each.charCodeAt())], name, {type});
window.bring = (event, ...files) => {
  const data = new DataTransfer();
  for (const file of files) data.items.add(file);
  const options = {bubbles: true, cancelable: true};
  document.dispatchEvent(event === "paste" ? new ClipboardEvent("paste", {...options, clipboardData: data})
    : new DragEvent(event, {...options, dataTransfer: data}));
};
window.texts = (selector) => [...document.querySelectorAll(selector)].map((each) => each.textContent.trim());
window.shown = (selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility()).length;
window.press = (selector) => document.querySelector(selector).click();
"""


def ready(page: Any) -> Any:
    page.wait_for(
        "document.getElementById('facts')?.textContent || document.getElementById('token-form')?.hidden === false"
    )
    page.run(SCRIPT)
    return page


def drop(page: Any, data: bytes, name: str = "photo.png", media_type: str = "image/png", event: str = "drop") -> None:
    text = base64.b64encode(data).decode()
    page.run(f"bring('{event}', fileOf('{name}', '{media_type}', '{text}'))")


def test_a_dropped_image_is_sent_unchanged_and_gets_labels_with_bars(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets)))
    drop(page, png("red"))
    assert page.wait_for("texts('.probability').length && texts('.bars .label')") == [
        "dog", "horse", "newt", "owl", "rat",
    ]  # fmt: skip
    assert pets.images == [png("red")]
    assert page.run("texts('.probability')") == ["50.0 %", "25.0 %", "12.0 %", "8.0 %", "3.0 %"]
    widths = page.run("[...document.querySelectorAll('.fill')].map((each) => each.getBoundingClientRect().width)")
    np.testing.assert_allclose(np.divide(widths, widths[0]), ODDS[[1, 2, 3, 4, 5]] / 0.5, atol=0.02)
    assert page.run("texts('#status')") == ["photo.png: dog, 50.0 %"]
    assert page.wait_for("document.querySelector('.photo').naturalWidth") == 40


def test_the_head_of_the_page_describes_the_model(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets)))
    assert page.run("texts('#model')[0] + ': ' + texts('#facts')[0]") == (
        "model_max_acc.hdf5: 7 classes · input 32 × 32 · Keras in float32"
    )


def test_all_labels_are_shown_on_request(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets)))
    drop(page, png("red"), event="paste")
    page.wait_for("shown('.more')")
    assert page.run("texts('.more')") == ["All 7 labels"]
    page.run("press('.more')")
    assert page.run("texts('.bars .label')") == ["dog", "horse", "newt", "owl", "rat", "cat", "yak"]
    assert page.run("texts('.probability')")[-1] == "0 %"
    page.run("press('.more')")
    assert page.run("texts('.bars .label').length") == 5


def test_a_file_that_is_not_an_image_shows_the_reason_and_the_others_get_labels(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("1.png", "3.png"):
        (tmp_path / name).write_bytes(png("red"))
    (tmp_path / "2.txt").write_text("no image")
    page = ready(open_page(serve(pets)))
    page.choose(*(tmp_path / name for name in ("1.png", "2.txt", "3.png")))
    page.wait_for("texts('.card').length === 3 && !document.querySelector('[aria-busy=true]')")
    assert page.run("texts('.card .name')") == ["1.png", "2.txt", "3.png"]
    assert page.run("texts('.message.error')") == ["The image cannot be read: it is not an image."]
    assert page.run("[...document.querySelectorAll('.card')].map((each) => each.querySelectorAll('li').length)") == [
        5, 0, 5,
    ]  # fmt: skip


def test_the_attribution_map_of_a_label_is_shown_on_request(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets)))
    drop(page, png("red"))
    page.wait_for("shown('.explain')")
    assert page.run("[shown('.photo'), shown('.map')]") == [1, 0]
    page.run("press('.explain')")
    page.wait_for("shown('.map') && document.querySelector('.map').naturalWidth === 40")
    assert page.run("shown('.photo')") == 0
    page.run("document.querySelectorAll('.bars .label')[1].click()")
    page.wait_for("texts('.legend')[0].includes('horse')")
    assert pets.explained == [PETS.index("dog"), PETS.index("horse")]
    page.run("press('.explain')")
    assert page.run("[shown('.photo'), shown('.map')]") == [1, 0]


def test_a_network_without_attribution_maps_shows_the_reason(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    pets.has_maps = False
    page = ready(open_page(serve(pets)))
    drop(page, png("red"))
    page.wait_for("shown('.explain')")
    page.run("press('.explain')")
    assert page.wait_for("texts('.message.error')[0]") == "flat has no attribution maps."


def test_the_token_is_requested_once_and_stored_in_the_tab(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets, token="secret")))
    for token in ("wrong", "secret"):
        page.wait_for("shown('#token-form')")
        page.run(f"document.getElementById('token').value = '{token}'; press('#token-form button')")
        page.wait_for("document.getElementById('token').value === '' || texts('#facts')[0]")
    page.wait_for("texts('#facts')[0]")
    assert page.run("texts('#curl')[0].includes('Bearer $MODEL_TRAINER_TOKEN')")
    assert not page.run("document.documentElement.outerHTML.includes('secret')")
    page.call("Page.reload")
    ready(page)
    drop(page, png("red"))
    page.wait_for("texts('.probability').length")


def test_a_request_to_a_busy_server_is_retried(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    pets.busy_times = 1
    page = ready(open_page(serve(pets)))
    drop(page, png("red"))
    page.wait_for("texts('.message')[0].includes('trying again in 1 s')")
    page.wait_for("texts('.probability').length")


def test_a_file_above_the_limit_is_not_sent(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets, max_body_bytes=50_000)))
    drop(page, bytes(120_000))
    assert page.wait_for("texts('.message.error')[0]") == "This file is 120 KB; this server accepts up to 50 KB."
    assert not pets.images


def test_a_server_without_response_is_reported_with_a_retry_button(
    pets: FakeService, open_page: Callable[..., Any]
) -> None:
    with serving(make_app(pets, ServeOptions())) as address:
        page = ready(open_page(address))
    drop(page, png("red"))
    assert "does not answer" in page.wait_for("texts('.message.error')[0]")
    assert page.run("shown('.again')") == 1


def test_tags_are_those_above_their_thresholds(serve: Callable[..., str], open_page: Callable[..., Any]) -> None:
    thresholds = (0.01, 0.6, 0.6, 0.1, 0.6, 0.6, 0.6)
    page = ready(open_page(serve(FakeService(PETS, ODDS, MultiLabel(), thresholds))))
    drop(page, png("red"))
    assert page.wait_for("texts('.probability').length && texts('.bars .label')") == ["newt", "cat"]
    page.run("press('.more')")
    assert page.wait_for("texts('.probability').length === 7 && texts('.bars .label')[0]") == "dog"


def test_an_image_without_tags_shows_a_message(serve: Callable[..., str], open_page: Callable[..., Any]) -> None:
    page = ready(open_page(serve(FakeService(PETS, np.zeros(7, np.float32), MultiLabel()))))
    drop(page, png("red"))
    page.wait_for("texts('.message')[0] === 'No tag reaches its threshold.'")


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_and_long_labels_are_shown_as_text_within_the_page(
    width: int, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    row = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
    page = ready(open_page(serve(FakeService(WEIRD, row, Classification())), width))
    drop(page, png("red"), name="n" * 200 + ".png")
    assert page.wait_for("texts('.probability').length && texts('.bars .label')") == [each.strip() for each in WEIRD]
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_photo_from_the_camera_is_sent(
    pets: FakeService, serve: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(serve(pets)))
    page.run("press('#open-camera')")
    page.wait_for("!document.querySelector('.take').disabled")
    page.run("press('.take')")
    page.wait_for("texts('.card .name')[0] === 'camera-1.jpg'")
    page.wait_for("!document.querySelector('dialog').open && document.querySelector('video').srcObject === null")


def test_the_page_forbids_frames_inline_code_and_other_servers(pets: FakeService, serve: Callable[..., str]) -> None:
    address = serve(pets)
    for path in ("", "static/page.js", "static/page.css"):
        with urllib.request.urlopen(address + path) as answer:
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"} <= {*policy}
        assert not [rule for rule in policy if "unsafe" in rule or "http" in rule]
