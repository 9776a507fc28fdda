"""Metrics of slices, which share the value of a column, and of coarse classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_trainer import Classification, Manifest
from model_trainer.errors import DataError
from model_trainer.evaluation.slices import coarse_labels, read_mapping, slice_metrics
from model_trainer.sources.manifest.other_columns import column_values
from model_trainer.tasks.evaluation import Evaluation

CLASSES = ("beagle", "pug", "siamese")


def evaluation_of(labels: list[int], predicted: list[int]) -> Evaluation:
    probabilities = np.full((len(labels), 3), 0.1, np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.8
    return Classification().evaluate(np.array(labels, np.int32), probabilities, CLASSES)


def test_slices_have_the_accuracy_of_their_images_and_the_worst_comes_first() -> None:
    evaluation = evaluation_of([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 0, 0])
    slices = slice_metrics(evaluation, ["a", "b", "a", "b", "b", "b"], "camera")
    assert slices["by"] == "camera"
    rows = [(each["value"], each["images"], each["metrics"]["accuracy"]["value"]) for each in slices["values"]]
    assert rows == [("b", 4, 0.25), ("a", 2, 1.0)]


def test_images_without_a_value_form_a_slice() -> None:
    slices = slice_metrics(evaluation_of([0, 1], [0, 0]), ["", "a"], "camera")
    assert {each["value"] for each in slices["values"]} == {"(empty)", "a"}


def test_a_column_of_many_numbers_is_divided_at_its_quartiles() -> None:
    labels = [0] * 100
    slices = slice_metrics(evaluation_of(labels, labels), [str(number) for number in range(100)], "year")
    assert sorted(each["images"] for each in slices["values"]) == [24, 25, 25, 26]
    assert {each["value"] for each in slices["values"]} == {"0 to 24", "24 to 49", "49 to 74", "74 to 99"}


def test_quartiles_of_large_numbers_have_distinct_names() -> None:
    labels = [0] * 400
    slices = slice_metrics(
        evaluation_of(labels, labels), [str(1_700_000_000 + number) for number in range(400)], "time"
    )
    assert len({each["value"] for each in slices["values"]}) == 4
    assert all(90 <= each["images"] <= 110 for each in slices["values"])
    assert any(each["value"].startswith("1700000000 to ") for each in slices["values"])


def test_a_frequent_number_is_its_own_slice() -> None:
    labels = [0] * 400
    values = ["0"] * 350 + [str(number) for number in range(1, 51)]
    slices = slice_metrics(evaluation_of(labels, labels), values, "count")
    counts = {each["value"]: each["images"] for each in slices["values"]}
    assert counts["0"] == 350
    assert len(counts) == 5


def test_each_of_few_distinct_numbers_is_its_own_slice() -> None:
    slices = slice_metrics(evaluation_of([0, 0, 1], [0, 0, 1]), ["1", "2", "2"], "sensor")
    assert {each["value"]: each["images"] for each in slices["values"]} == {"1": 1, "2": 2}


def test_the_probability_of_a_coarse_class_is_the_sum_over_its_classes() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 50).astype(np.float32)
    labels = random.integers(0, 3, 50)
    mapping = {"beagle": "dog", "pug": "dog", "siamese": "cat"}
    coarse, sums, classes = coarse_labels(labels, probabilities, mapping)
    assert classes == ("cat", "dog")
    np.testing.assert_allclose(sums[:, 1], probabilities[:, 0] + probabilities[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(coarse, np.where(labels == 2, 0, 1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coarse.json", json.dumps({"beagle": "dog", "pug": "dog", "siamese": "cat", "tabby": "cat"})),
        ("coarse.csv", "beagle,dog\npug,dog\nsiamese,cat\n"),
    ],
)
def test_a_mapping_is_read_from_json_and_csv(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_mapping(str(tmp_path / name), CLASSES) == {"beagle": "dog", "pug": "dog", "siamese": "cat"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"beagle": "dog", "pug": "dog"}', "no coarse class for 'siamese'"),
        ("b.json", '{"beagle": ["dog"]}', "not an object of class names"),
        ("c.json", "{", "could not be read"),
        ("d.csv", "beagle,dog,extra\n", "two columns"),
        ("e.json", "[" * 100_000, "could not be read"),
    ],
)
def test_an_invalid_mapping_is_reported(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_mapping(str(tmp_path / name), CLASSES)


def test_a_missing_mapping_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*no\.csv"):
        read_mapping(str(tmp_path / "no.csv"), CLASSES)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    lines = ["filename,label,split,camera"]
    lines += [f"{number}.jpg,{'cat' if number % 2 else 'dog'},{'val' if number > 3 else 'train'},{number % 3 or ''}"
              for number in range(8)]  # fmt: skip
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    return Manifest(str(tmp_path / "data.csv"))


def test_the_values_of_a_column_are_aligned_with_the_images_of_a_split(manifest: Manifest) -> None:
    val = manifest.changed("split_name", "val")
    assert column_values(val, val.read(), "camera") == ["1", "2", "", "1"]


def test_the_values_of_a_column_are_aligned_with_filtered_and_shuffled_examples(manifest: Manifest) -> None:
    dogs = manifest.filter(classes=("dog",)).take(3, seed=1)
    examples = dogs.read()
    numbers = [int(Path(name).stem) for name in examples.names()]
    assert column_values(dogs, examples, "camera") == [str(number % 3 or "") for number in numbers]


def test_crops_of_the_same_image_have_their_own_values(tmp_path: Path) -> None:
    rows = ['{"filename": "a.jpg", "label": "cat", "crop": [0, 0, 4, 4], "eye": "left"}',
            '{"filename": "a.jpg", "label": "dog", "crop": [4, 0, 4, 4], "eye": "right"}']  # fmt: skip
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    source = Manifest(str(tmp_path / "data.jsonl"))
    assert column_values(source, source.read(), "eye") == ["left", "right"]


def test_an_unknown_column_is_reported_with_the_existing_ones(manifest: Manifest) -> None:
    with pytest.raises(DataError, match=r"has no column 'camra'\. Did you mean 'camera'\?.*'filename', 'label'"):
        column_values(manifest, manifest.read(), "camra")


def test_a_folder_has_no_columns(colors: Path) -> None:
    from model_trainer import ImageFolder

    source = ImageFolder(colors / "val")
    with pytest.raises(DataError, match="is not a manifest, so it has no column 'camera'"):
        column_values(source, source.read(), "camera")
