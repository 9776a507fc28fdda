"""Folds for cross-validation: each example is validated once, classes are even, groups stay together."""

from __future__ import annotations

import json
import logging
import os
import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from model_trainer.config import Config
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources import Examples, Fold, ImageFolder, Source
from model_trainer.sources.folds import assign_folds
from model_trainer.sources.label_rows import LabelRows


class Table(Source):
    """A source of the test: examples by name."""

    key: str

    def read(self) -> Examples:
        return TABLES[self.key]


TABLES: dict[str, Examples] = {}


def examples_of(labels: np.ndarray | LabelRows, num_classes: int, groups: np.ndarray | None = None) -> Examples:
    names = tuple(f"class{index}" for index in range(num_classes))
    return Examples.of_files((f"{index}.jpg" for index in range(len(labels))), labels, names, "given", groups=groups)


def source_of(labels: np.ndarray | LabelRows, num_classes: int, groups: np.ndarray | None = None) -> Table:
    key = str(len(TABLES))
    TABLES[key] = examples_of(labels, num_classes, groups)
    return Table(key=key)


def counts_by_fold(fold: np.ndarray, dense: np.ndarray, folds: int) -> np.ndarray:
    """`(folds, num_classes)`: images of each class in the validation data of each fold."""
    counts = np.zeros((folds, dense.shape[1]))
    np.add.at(counts, fold, np.nan_to_num(dense))
    return counts


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_example_is_validated_in_exactly_one_fold_and_trained_on_in_the_others(folds: int) -> None:
    source = source_of(np.arange(43) % 3, 3)
    splits = [(train.read().names(), val.read().names()) for train, val in source.folds(folds)]
    assert sorted(name for _, val in splits for name in val) == sorted(TABLES[source.key].names())
    for train, val in splits:
        assert sorted(train + val) == sorted(TABLES[source.key].names())


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_distributed_as_evenly_as_by_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(4, 203, p=random.dirichlet(np.ones(4)))
    fold = assign_folds(examples_of(labels, 4), 5, seed)
    theirs = np.empty(203, int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for index, (_, val) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)):
            theirs[val] = index
    mine, other = (counts_by_fold(each, np.eye(4)[labels], 5) for each in (fold, theirs))
    assert np.ptp(mine, axis=0).max() <= 1
    np.testing.assert_array_equal(np.sort(mine, axis=0), np.sort(other, axis=0))
    assert np.ptp(np.bincount(fold)) <= 1


def test_groups_of_several_classes_are_on_average_distributed_as_evenly_as_by_scikit_learn() -> None:
    mine, theirs = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        labels, groups = random.choice(3, 200, p=[0.6, 0.3, 0.1]), random.integers(0, 40, 200).astype(np.int32)
        fold, other = assign_folds(examples_of(labels, 3, groups), 4, seed), np.empty(200, int)
        splitter = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
        for index, (_, val) in enumerate(splitter.split(labels, labels, groups)):
            other[val] = index
        for each, spreads in ((fold, mine), (other, theirs)):
            counts = counts_by_fold(each, np.eye(3)[labels], 4)
            spreads.append([(counts / counts.sum(axis=0)).std(axis=0).mean(), np.ptp(counts.sum(axis=1))])
    assert (np.mean(mine, axis=0) <= np.mean(theirs, axis=0)).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_split_between_training_and_validation(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(100, 130, 200).astype(np.int32)
    for train, val in source_of(np.arange(200) % 3, 3, groups).folds(5, seed):
        assert not set(train.read().groups) & set(val.read().groups)


def test_rare_tags_are_in_every_fold() -> None:
    random = np.random.default_rng(0)
    dense = (random.random((300, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.05]).astype(np.float32)
    dense[:50, 0] = np.nan
    counts = counts_by_fold(assign_folds(examples_of(LabelRows.of_dense(dense), 6), 5, 0), dense, 5)
    assert np.ptp(counts, axis=0).max() <= 2
    assert np.ptp(np.bincount(assign_folds(examples_of(LabelRows.of_dense(dense), 6), 5, 0))) <= 2


def test_folds_are_stratified_by_the_most_likely_class_of_probabilities() -> None:
    dense = np.tile([[0.9, 0.1], [0.2, 0.8]], (15, 1))
    labels = LabelRows.of_dense(dense, exclusive=True)
    assert [val.read().counts().tolist() for _, val in source_of(labels, 2).folds(5)] == [[3, 3]] * 5


def test_the_same_seed_gives_the_same_folds_and_another_gives_others() -> None:
    source = source_of(np.arange(60) % 3, 3)
    names = [[val.read().names() for _, val in source.folds(5, seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def named_examples(names: list[str], groups: list[int] | None = None) -> Examples:
    numbers = None if groups is None else np.array(groups, np.int32)
    return Examples.of_files(names, np.arange(len(names)) % 2, ("a", "b"), "given", groups=numbers)


@pytest.mark.parametrize("seed", range(5))
def test_all_rows_of_an_image_are_in_one_fold_however_its_path_is_written(seed: int) -> None:
    spellings = ("d/{}.jpg", "./d/{}.jpg", "d/x/../{}.jpg", f"{os.getcwd()}/d/{{}}.jpg")
    fold = assign_folds(named_examples([text.format(index) for text in spellings for index in range(10)]), 5, seed)
    rows = fold.reshape(4, 10)
    assert (rows == rows[0]).all()
    assert np.bincount(rows[0]).tolist() == [2] * 5


def test_images_in_an_object_store_are_the_same_only_if_their_names_are() -> None:
    examples = named_examples(["s3://a/b.jpg", "s3:/a/b.jpg", "s3://a/b.jpg"])
    assert examples.image_numbers.tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_groups_that_share_an_image_are_in_one_fold(seed: int) -> None:
    names = ["0.jpg", "1.jpg", "1.jpg", "2.jpg", "2.jpg", *(f"{index}.jpg" for index in range(5, 12))]
    groups = [9, 9, 4, 4, 7, 1, 1, 2, 2, 3, 3, 3]  # 9, 4 and 7 are a chain
    fold = assign_folds(named_examples(names, groups), 3, seed)
    assert len(set(fold[:5])) == 1
    assert all(len(set(fold[np.array(groups) == group])) == 1 for group in (1, 2, 3))
    assert set(fold) == {0, 1, 2}


def test_the_number_of_repeated_images_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    TABLES["repeated"] = named_examples([f"{index % 8}.jpg" for index in range(10)])
    with caplog.at_level(logging.INFO, "absl"):
        for train, val in Table(key="repeated").folds(2):
            assert not {*train.read().names()} & {*val.read().names()}
    assert [record.getMessage() for record in caplog.records] == [
        "given: 2 images in several rows; all rows of an image stay in one fold."
    ]


def test_folds_keep_the_order_of_their_source() -> None:
    train, val = source_of(np.arange(60) % 3, 3).folds(5)[2]
    for examples in (train.read(), val.read()):
        assert examples.rows.tolist() == sorted(examples.rows)


def test_a_fold_survives_a_json_round_trip() -> None:
    fold = ImageFolder("data/train").folds(4, seed=3)[2][1]
    data = json.loads(json.dumps(fold.to_dict()))
    assert data == {
        "type": "Fold", "source": data["source"], "folds": 4, "index": 2, "seed": 3, "split": "val",
    }  # fmt: skip
    assert Fold.from_dict(data) == fold


def test_a_run_with_folds_survives_a_json_round_trip() -> None:
    class Holder(Config):
        data: Source

    held = Holder(data=ImageFolder("data/train").folds(4)[0][0])
    assert Holder.from_dict(held.to_dict()) == held


@pytest.mark.parametrize("folds", [0, 1, -3])
def test_fewer_than_two_folds_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=f"`folds` should be at least 2, got {folds}"):
        ImageFolder("data/train").folds(folds)


@pytest.mark.parametrize(("folds", "problem"), [(2.5, "a whole number, got 2.5"), (300_000, "at most 10000")])
def test_an_invalid_number_of_folds_is_refused(folds: float, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"`folds` should be .*{problem}"):
        ImageFolder("data/train").folds(folds)  # type: ignore[arg-type]


def test_an_index_beyond_the_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match="`index` should be below `folds`, 3, got 3; it counts from 0"):
        Fold(source=ImageFolder("data/train"), folds=3, index=3)


def test_fewer_images_than_folds_are_an_error() -> None:
    with pytest.raises(DataError, match="given has 3 images, too few for 5 folds. Use fewer folds"):
        source_of(np.arange(3), 3).folds(5)[0][0].read()


def test_fewer_groups_than_folds_are_an_error_that_names_the_cure() -> None:
    with pytest.raises(DataError, match="given has 4 groups, too few for 5 folds, .* Use at most 4 folds"):
        source_of(np.arange(40) % 3, 3, (np.arange(40) % 4).astype(np.int32)).folds(5)[0][0].read()


def test_a_class_with_fewer_images_than_folds_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    source = source_of(np.array([0] * 20 + [1] * 3), 2)
    with caplog.at_level(logging.WARNING, "absl"):
        splits = [(train.read(), val.read()) for train, val in source.folds(5)]
    assert [record.getMessage() for record in caplog.records] == [
        "given: 1 class has fewer images than the 5 folds, such as 'class1' with 3; not every fold can validate them."
    ]
    assert sorted(val.counts()[1] for _, val in splits) == [0, 0, 1, 1, 1]
    assert all(train.classes == val.classes == ("class0", "class1") for train, val in splits)
