from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import Call, ImageFolder, Run
from model_trainer.config import Config
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources import Examples, Source
from model_trainer.sources.images import ByteRanges, ConcatenatedImages
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.source import each_read_once


class Given(Source):
    """A source of the test: the examples at a key of TABLES."""

    key: str

    def read(self) -> Examples:
        return TABLES[self.key]


def names(count: int, folder: str = "data") -> list[str]:
    return [f"{folder}/{number}.jpg" for number in range(count)]


TABLES = {
    "single": Examples.of_files(names(12), np.arange(12) % 3, ("cat", "dog", "eel"), "single"),
    "others": Examples.of_files(names(4, "other"), np.array([0, 1, 1, 1]), ("dog", "fox"), "others"),
    "tags": Examples.of_files(
        names(4, "tags"), LabelRows.of([[0], [0, 1], [], [1]], [[1], [1, np.nan], [], [1]]), ("eel", "red"), "tags"
    ),
    "soft": Examples.of_files(
        names(2, "soft"), LabelRows.of_dense(np.array([[0.9, 0.1], [0.5, 0.5]]), exclusive=True), ("cat", "dog"), "soft"
    ),
    "groups": Examples.of_files(
        names(60), np.repeat([0, 1], 30), ("cat", "dog"), "groups", groups=(np.arange(60) // 5).astype(np.int32)
    ),
}  # fmt: skip


def classes_of(examples: Examples) -> list[str]:
    return [examples.classes[label] for label in examples.labels]


def keep_even(examples: Examples, remainder: int = 0) -> np.ndarray:
    return np.arange(len(examples)) % 2 == remainder


class Counted(Source):
    """A source of the test that records each read."""

    def read(self) -> Examples:
        READS.append(1)
        return TABLES["single"]


READS: list[int] = []


def test_both_halves_of_a_split_read_their_source_once() -> None:
    READS.clear()
    with each_read_once():
        train, val = (half.read_shared() for half in Counted().split(0.25))
    assert (len(train), len(val), len(READS)) == (9, 3, 1)
    Counted().split(0.25)[0].read()
    assert len(READS) == 2  # so changes between two runs are noticed


def test_take_gives_the_first_examples() -> None:
    assert Given("single").take(5).read().names() == names(12)[:5]


def test_take_with_a_seed_always_gives_the_same_random_examples_in_the_order_of_the_source() -> None:
    taken = [Given("single").take(6, seed=seed).read().names() for seed in (0, 0, 1)]
    assert taken[0] == taken[1] != taken[2]
    assert [names(12).index(name) for name in taken[0]] == sorted(names(12).index(name) for name in taken[0])
    assert len(set(taken[0])) == 6


def test_taking_more_examples_than_there_are_takes_all() -> None:
    assert len(Given("single").take(100).read()) == 12


def test_filtering_by_class_drops_images_and_classes() -> None:
    examples = Given("single").filter(classes=("eel", "cat")).read()
    assert examples.classes == ("eel", "cat")
    assert classes_of(examples) == ["cat", "eel"] * 4
    assert examples.names()[:3] == ["data/0.jpg", "data/2.jpg", "data/3.jpg"]


def test_filtering_tags_by_class_keeps_the_images_that_have_or_might_have_one() -> None:
    examples = Given("tags").filter(classes=("red",)).read()
    assert examples.names() == ["tags/1.jpg", "tags/3.jpg"]
    np.testing.assert_array_equal(examples.labels.dense(1), [[np.nan], [1]])


def test_filtering_by_name_and_by_count() -> None:
    assert Given("single").filter(name="*/1*.jpg").read().names() == ["data/1.jpg", "data/10.jpg", "data/11.jpg"]
    assert Given("others").filter(min_images=2).read().classes == ("fox",)


def test_filtering_by_a_user_function_as_an_object_and_by_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_filters", sys.modules[__name__])
    assert Given("single").filter(where=keep_even).read().names() == names(12)[::2]
    by_name = Given("single").filter(where=Call("own_filters.keep_even", remainder=1))
    assert by_name.read().names() == names(12)[1::2]
    assert type(by_name).from_dict(by_name.to_dict()) == by_name


def test_a_filter_that_does_not_return_a_bool_for_each_example_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`where` should return bool \(12,\)"):
        Given("single").filter(where=lambda examples: np.arange(3)).read()


def test_a_filter_that_no_example_passes_is_an_error() -> None:
    with pytest.raises(DataError, match="single: no example passes"):
        Given("single").filter(name="*.tiff").read()


def test_sources_join_with_their_classes_merged_by_name() -> None:
    examples = (Given("single") + Given("others")).read()
    assert examples.classes == ("cat", "dog", "eel", "fox")
    assert examples.names() == names(12) + names(4, "other")
    assert classes_of(examples)[10:] == ["dog", "eel", "dog", "fox", "fox", "fox"]


def test_single_labels_joined_with_tags_become_tags() -> None:
    examples = (Given("single").take(3) + Given("tags")).read()
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, np.nan], [0, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(examples.labels.dense(4), np.array(expected, np.float32))
    assert examples.label_kind == "tags"


def test_single_labels_joined_with_probabilities_become_probabilities() -> None:
    examples = (Given("soft") + Given("single").take(1)).read()
    assert examples.label_kind == "probabilities"
    np.testing.assert_allclose(examples.labels.dense(3), [[0.9, 0.1, 0], [0.5, 0.5, 0], [1, 0, 0]])


def test_tags_and_probabilities_cannot_be_joined() -> None:
    with pytest.raises(DataError, match="tags has tags and another source class probabilities"):
        (Given("soft") + Given("tags")).read()


def test_joined_weights_crops_and_groups_stay_with_their_images() -> None:
    crops = np.array([[1, 2, 3, 4]] * 4, np.int32)
    TABLES["cropped"] = Examples.of_files(
        names(4), np.zeros(4), ("cat",), "cropped", weights=np.full(4, 2.0), crops=crops, groups=np.array([7, 7, 9, 9])
    )
    examples = (Given("single").take(2) + Given("cropped")).read()
    assert examples.weights.tolist() == [1, 1, 2, 2, 2, 2]
    assert examples.crops.tolist() == [[0, 0, 0, 0]] * 2 + [[1, 2, 3, 4]] * 4
    groups = examples.groups.tolist()
    assert len(set(groups[:2])) == 2
    assert groups[2] == groups[3] != groups[4] == groups[5]
    assert len(set(groups)) == 4


def test_files_can_be_joined_with_byte_ranges_of_a_larger_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"onetwothree")
    (tmp_path / "x.jpg").write_bytes(b"file")
    ranges = ByteRanges(
        [str(tmp_path / "a.bin")], np.zeros(3, np.int32), np.array([0, 3, 6]), np.array([3, 3, 5], np.int64)
    )
    TABLES["ranges"] = Examples.of_images(ranges, np.zeros(3), ("cat",), "ranges")
    TABLES["file"] = Examples.of_files([str(tmp_path / "x.jpg"), str(tmp_path / "none")], np.zeros(2), ("cat",), "file")
    examples = (Given("ranges") + Given("file")).read()
    assert isinstance(examples.images, ConcatenatedImages)
    assert [examples.images.read(row) for row in (0, 1, 2, 3)] == [b"one", b"two", b"three", b"file"]
    assert examples.num_bytes.tolist() == [3, 3, 5, 4, -1]
    assert examples.names()[1:4] == [f"{tmp_path}/a.bin#1", f"{tmp_path}/a.bin#2", f"{tmp_path}/x.jpg"]


def test_the_classes_of_another_source_can_be_used() -> None:
    examples = Given("others").with_classes(("fox", "cat", "dog")).read()
    assert examples.labels.tolist() == [2, 0, 0, 0]
    with pytest.raises(DataError, match="others has the class 'fox'"):
        Given("others").with_classes(Given("single")).read()


@pytest.mark.parametrize("seed", range(5))
def test_a_split_never_divides_a_group(seed: int) -> None:
    train, val = (split.read() for split in Given("groups").split(val=0.25, seed=seed))
    assert not set(train.groups) & set(val.groups)
    assert sorted(train.names() + val.names()) == sorted(names(60))
    assert 10 <= len(val) <= 20
    assert set(val.labels) == set(train.labels) == {0, 1}


def test_a_split_of_tags_divides_all_images_as_a_whole() -> None:
    train, val = (split.read() for split in Given("tags").split(val=0.25))
    assert (len(train), len(val)) == (3, 1)


@pytest.mark.parametrize(
    "source",
    [
        ImageFolder("a").take(3, seed=1) + ImageFolder("b").filter(classes=("x",), name="*z*", min_images=2),
        ImageFolder("a").with_classes(ImageFolder("b")),
        ImageFolder("a").with_classes(("x", "y")).split(val=0.5)[1],
    ],
)
def test_combined_sources_survive_a_json_round_trip(source: Source) -> None:
    class Holder(Config):
        source: Source

    assert Holder.from_dict(Holder(source=source).to_dict()).source == source


def test_a_subset_in_the_options_of_an_earlier_version_is_read_by_its_former_name() -> None:
    former = {"type": "Taken", "source": {"type": "ImageFolder", "path": "data/train"}, "count": 5, "seed": None}
    assert Run.from_dict({"spec": {"target_size": [8, 8, 3]}, "train_data": former}).train_data == ImageFolder(
        "data/train"
    ).take(5)


def test_a_name_that_is_not_utf_8_is_kept() -> None:
    odd = b"caf\xe9/\xff.jpg".decode(errors="surrogateescape")
    assert Examples.of_files(["a.jpg", odd], np.zeros(2), ("cat",), "odd").names() == ["a.jpg", odd]


def test_an_example_takes_at_most_25_bytes_besides_its_path() -> None:
    paths = [f"data/train/class/{number:07d}.jpg" for number in range(100_000)]
    examples = Examples.of_files(paths, np.zeros(100_000), ("cat",), "many")
    held = len(examples.images.paths.data) + sum(
        column.nbytes for column in (examples.images.paths.starts, examples.rows, examples.labels, examples.weights)
    )
    assert held / 100_000 - len(paths[0]) <= 25


def test_remote_files_are_read_by_tensorflows_file_systems() -> None:
    tf.io.gfile.makedirs("ram://images")
    with tf.io.gfile.GFile("ram://images/a.jpg", "wb") as file:
        file.write(b"remote")
    examples = Examples.of_files(["ram://images/a.jpg", "ram://images/none.jpg"], np.zeros(2), ("cat",), "remote")
    assert examples.images.read(0) == b"remote"
    assert examples.num_bytes.tolist() == [0, 0]  # sizes of remote files are not queried
    with pytest.raises(FileNotFoundError):
        examples.images.read(1)
