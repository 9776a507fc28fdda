"""Images in, predictions out, in every format; compared with `predict` of the same files."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_trainer import MultiLabel
from model_trainer.model_files.trained_model import TrainedModel
from model_trainer.serving.http.images import read_images
from model_trainer.serving.predictor import predict_images


@pytest.fixture(scope="module")
def expected(trained: TrainedModel, jpegs: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The predictions of `predict` for the images."""
    folder: Path = tmp_path_factory.mktemp("images")
    for index, data in enumerate(jpegs):
        (folder / f"{index}.jpg").write_bytes(data)
    paths = [str(folder / f"{index}.jpg") for index in range(len(jpegs))]
    return [each["predictions"] for each in predict_images(trained, paths)]


def same(predictions: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    names = [each["label"] for each in predictions] == [each["label"] for each in expected]
    return names and np.allclose(
        [each["probability"] for each in predictions], [each["probability"] for each in expected], atol=1e-6
    )


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/png; x=y", "IMAGE/WEBP", "application/x-image"])
def test_an_image_of_any_image_content_type_is_answered_as_by_predict(
    client, jpegs, expected, content_type: str
) -> None:
    response = client.send(jpegs[0], content_type)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert same(response.json()["predictions"], expected[0])


def test_instances_in_base64_are_answered_in_order(client, jpegs, expected) -> None:
    response = client.send_json({"instances": [b64(jpegs[2]), {"image": b64(jpegs[1])}]})
    first, second = response.json()["predictions"]
    assert same(first, expected[2])
    assert same(second, expected[1])


def test_an_array_of_pixels_is_not_changed(client, service, pixels) -> None:
    client.send_json({"instances": pixels.tolist()})
    np.testing.assert_array_equal(service.received[0], pixels)


def test_json_lines_are_answered_line_by_line(client, jpegs, expected) -> None:
    body = "\n".join(json.dumps(each) for each in (b64(jpegs[0]), b64(b"text"), {"b64": "#"}, b64(jpegs[1])))
    response = client.send(body, "application/x-ndjson")
    assert response.headers["content-type"] == "application/x-ndjson"
    first, second, third, fourth = map(json.loads, response.text.splitlines())
    assert same(first["predictions"], expected[0])
    assert second == {"error": "is not an image"}
    assert "base64" in third["error"]
    assert same(fourth["predictions"], expected[1])


def test_without_a_readable_line_the_network_is_not_called(client, service) -> None:
    response = client.send('{"b64": "#"}\n5', "application/jsonlines")
    assert [set(json.loads(line)) for line in response.text.splitlines()] == [{"error"}, {"error"}]
    assert not service.received


def test_several_files_of_a_form_are_answered_like_instances(client, jpegs, expected) -> None:
    files = [("a", ("0.jpg", jpegs[0])), ("b", ("1.jpg", jpegs[1]))]
    response = client("POST", "/invocations", files=files, data={"comment": "hello"})
    first, second = response.json()["predictions"]
    assert same(first, expected[0])
    assert same(second, expected[1])


def test_one_file_of_a_form_is_answered_like_an_image(client, jpegs, expected) -> None:
    response = client("POST", "/invocations", files={"image": ("0.jpg", jpegs[0])})
    assert same(response.json()["predictions"], expected[0])


def test_probabilities_are_in_the_order_of_the_classes(client, trained, jpegs, expected) -> None:
    response = client.send(jpegs[0], path="/invocations?output=probabilities").json()
    by_label = {each["label"]: each["probability"] for each in expected[0]}
    for label, probability in zip(trained.classes, response["prediction"], strict=True):
        assert by_label.get(label, probability) == pytest.approx(probability, abs=1e-6)


def test_csv_has_a_row_of_all_probabilities_for_each_image(client, jpegs) -> None:
    body = {"instances": [b64(each) for each in jpegs]}
    rows = list(csv.reader(io.StringIO(client.send_json(body, accept="text/csv").text)))
    exact = client.send_json(body, path="/invocations?output=probabilities").json()["predictions"]
    assert [[float(each) for each in row] for row in rows] == [each["prediction"] for each in exact]


def test_npy_is_float32_of_images_by_classes(client, jpegs) -> None:
    body = {"instances": [b64(each) for each in jpegs]}
    array = np.load(io.BytesIO(client.send_json(body, accept="application/x-npy").content))
    exact = client.send_json(body, path="/invocations?output=probabilities").json()["predictions"]
    assert array.dtype == np.float32
    assert array.tolist() == [each["prediction"] for each in exact]


def test_tags_are_selected_by_threshold_or_by_top_k(client, service, jpegs) -> None:
    exact = client.send(jpegs[0], path="/invocations?output=probabilities").json()["prediction"]
    thresholds = tuple(value + (0.01 if index % 2 else -0.01) for index, value in enumerate(exact))
    service.trained = dataclasses.replace(service.trained, task=MultiLabel(), thresholds=thresholds)
    tags = client.send(jpegs[0]).json()["predictions"]
    assert {each["label"] for each in tags} == set(service.trained.classes[::2])
    tags = client.send(jpegs[0], path="/invocations?top_k=6").json()["predictions"]
    assert [each["probability"] for each in tags] == sorted(exact, reverse=True)[:6]


def test_large_json_is_parsed_in_another_thread(client, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def parse(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return read_images(*arguments)

    monkeypatch.setattr("model_trainer.serving.http.invocations.read_images", parse)
    for size in (1000, 100_000):
        client.send_json({"b64": base64.b64encode(bytes(size)).decode()})
    assert threads == [True, False]


def test_large_answers_are_complete(client, pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"instances": pixels.tolist()}
    small = client.send_json(body).json()
    monkeypatch.setattr("model_trainer.serving.http.invocations.SMALL_ANSWER_NUMBERS", 0)
    assert client.send_json(body).json() == small


def test_the_model_route_describes_the_model_and_its_limits(client, trained) -> None:
    model = client("GET", "/model").json()
    limits = model.pop("limits")
    assert limits["body_bytes"] == 6_291_456
    assert model == {
        "file": "model_max_acc.hdf5",
        "version": "1a2b3c4d",
        "task": "Classification",
        "classes": list(trained.classes),
        "input_size": [32, 32, 3],
        "engine": "keras",
        "precision": "float32",
        "is_calibrated": False,
    }


def test_arrays_of_the_wrong_size_for_a_newly_loaded_model_are_refused(
    client, service, pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*arguments: Any) -> Any:
        images = read_images(*arguments)
        spec = service.trained.spec.changed("target_size", [16, 16, 3])
        service.trained = dataclasses.replace(service.trained, spec=spec)
        return images

    monkeypatch.setattr("model_trainer.serving.http.invocations.read_images", parse)
    response = client.send_json({"instances": np.repeat(pixels, 4, 0).tolist()})
    assert (response.status_code, service.received) == (400, [])
    assert "16 × 16 × 3" in response.json()["error"]


def test_predictions_are_encoded_image_by_image(client, pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def encode(value: Any) -> str:
        text = json.dumps(value)
        sizes.append(text.count("label"))
        return text

    monkeypatch.setattr("model_trainer.serving.http.responses._encode", encode)
    assert len(client.send_json({"instances": pixels.tolist()}).json()["predictions"]) == 4
    assert sizes == [5, 5, 5, 5]
