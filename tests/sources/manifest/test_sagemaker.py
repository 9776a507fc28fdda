from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_trainer.errors import DataError
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.manifest import Manifest


def dense(manifest: Manifest) -> list[list[float]]:
    examples = manifest.read()
    assert isinstance(examples.labels, LabelRows)
    return examples.labels.dense(len(examples.classes)).tolist()


def single(manifest: Manifest) -> tuple[list[int], tuple[str, ...]]:
    examples = manifest.read()
    assert isinstance(examples.labels, np.ndarray)
    assert examples.labels.dtype == np.int32
    return examples.labels.tolist(), examples.classes


def test_augmented_manifests_load_as_in_sagemakers_documentation(tmp_path: Path) -> None:
    path = tmp_path / "train.manifest"
    path.write_text(
        '{"source-ref":"s3://image/filename1.jpg", "class":"0"}\n'
        '{"source-ref":"s3://image/filename2.jpg", "class":"1", "class-metadata": {"class-name": "cat", '
        '"type" : "groundtruth/image-classification"}}\n'
    )
    examples = Manifest(path).read()
    assert examples.names() == ["s3://image/filename1.jpg", "s3://image/filename2.jpg"]
    assert single(Manifest(path)) == ([0, 1], ("0", "cat"))
    assert single(Manifest(path, classes=("dog", "cat"))) == ([0, 1], ("dog", "cat"))
    path.write_text(
        '{"image-ref": "s3://mybucket/sample01/image1.jpg", "class": [1, 0, 1]}\n'
        '{"image-ref": "s3://mybucket/sample01/image2.jpg", "class": [0, 0, 1]}\n'
    )
    assert dense(Manifest(path)) == [[1, 0, 1], [0, 0, 1]]
    path.write_text(
        '{"image-ref": "s3://mybucket/sample01/image1.jpg", "class": [0, 2]}\n'
        '{"image-ref": "s3://mybucket/sample01/image2.jpg", "class": [2]}\n'
    )
    assert dense(Manifest(path)) == [[1, 0, 1], [0, 0, 1]]


def test_the_labels_of_a_ground_truth_job_are_found_by_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "output.manifest"
    path.write_text('{"source-ref": "s3://box/1.png", "my-job": 0, "my-job-metadata": {"class-name": "Echo Dot"}}\n')
    assert single(Manifest(path)) == ([0], ("Echo Dot",))
    path.write_text(
        '{"source-ref": "s3://box/1.png", "job": [0, 1], "job-metadata": {"class-map": {"0": "red", "1": "dress"}}}\n'
        '{"source-ref": "s3://box/2.png", "job": [1, 3], "job-metadata": {"class-map": {"1": "dress", "3": "shoe"}}}\n'
    )
    assert Manifest(path).read().classes == ("red", "dress", "2", "shoe")
    assert dense(Manifest(path)) == [[1, 1, 0, 0], [0, 1, 0, 1]]
    # With a class list labels are matched by name; the numbers are those of the job.
    assert dense(Manifest(path, classes=("shoe", "red", "dress"))) == [[0, 1, 1], [1, 0, 1]]


def test_a_class_index_cannot_have_two_names(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    line = '{{"source-ref": "s3://box/1.png", "job": 0, "job-metadata": {{"class-name": "{}"}}}}\n'
    path.write_text(line.format("cat") + line.format("dog"))
    with pytest.raises(DataError, match="line 2: the class index 0 has the name 'dog' here and 'cat' before"):
        Manifest(path).read()


def test_a_very_large_class_index_is_refused(tmp_path: Path) -> None:
    line = '{"source-ref": "1.png", "job": 0, "job-metadata": {"class-map": {"900000000": "red"}}}'
    (tmp_path / "m.manifest").write_text(line + "\n")
    with pytest.raises(DataError, match="class index 900000000 should be at most 16777215"):
        Manifest(str(tmp_path / "m.manifest")).read()
