"""A data set that tensorflow-datasets prepares here, compared with what its own readers give."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer.errors import ConfigError, DataError, MissingExtra
from model_trainer.sources.examples import Examples
from model_trainer.sources.tfds import Tfds

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
pytest.importorskip("array_record", reason="needs the extra tfds")

FORMATS = ["tfrecord", "array_record"]


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (4, 6, 3), np.uint8)


class Zoo(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """20 images to train, 6 to test, in 3 files each."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        animal, color = tfds.features.ClassLabel(names=["cat", "dog"]), tfds.features.ClassLabel(names=["red", "blue"])
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "depth": tfds.features.Image(shape=(4, 6, 1), dtype=np.float32),
            "label": animal,
            "colors": tfds.features.Sequence(color),
            "objects": tfds.features.Sequence({"kind": animal, "size": np.float32}),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(100, 6)}

    def _generate_examples(self, first: int, count: int):
        for number in range(first, first + count):
            yield (
                number,
                {
                    "image": pixels(number),
                    "depth": np.zeros((4, 6, 1), np.float32),
                    "label": number % 3 % 2,
                    "colors": [0, 1][: number % 3],
                    "objects": [{"kind": 1, "size": 0.5}] * (number % 3),
                    "name": f"animal {number % 4}",
                },
            )


class Nameless(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One image and one class under unusual names; as in test splits without labels, the label of `test` is -1."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"photo": tfds.features.Image(), "animal": {"kind": tfds.features.ClassLabel(num_classes=3)}}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples(2), "test": self._generate_examples(-1)}

    def _generate_examples(self, kind: int):
        yield 0, {"photo": pixels(0), "animal": {"kind": kind}}


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Prepares a data set in a folder and returns that, once for each format."""
    folders: dict[tuple[type, str], Path] = {}

    def make(builder: type, file_format: str = "tfrecord") -> Path:
        if (builder, file_format) not in folders:
            folder = tmp_path_factory.mktemp(file_format)
            config = tfds.download.DownloadConfig(num_shards=3 if builder is Zoo else 1)
            builder(data_dir=folder, file_format=file_format).download_and_prepare(download_config=config)
            folders[builder, file_format] = folder
        return folders[builder, file_format]

    tfds.disable_progress_bar()
    return make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_CACHE", str(tmp_path / "cache"))


def decoded(examples: Examples) -> list[list]:
    images = (examples.images.read(int(row)) for row in examples.rows)
    return [np.asarray(Image.open(io.BytesIO(image))).tolist() for image in images]


@pytest.mark.parametrize("split", ["train", "train[10%:75%]", "test+train[-3:]"])
def test_tfrecord_files_give_what_tensorflow_datasets_reads(prepare: Callable[..., Path], split: str) -> None:
    folder = prepare(Zoo)
    one_after_the_other = tfds.ReadConfig(interleave_cycle_length=1)
    expected = list(Zoo(data_dir=folder).as_dataset(split=split, read_config=one_after_the_other))
    examples = Tfds("zoo", split=split, data_dir=folder).read()
    assert decoded(examples) == [each["image"].numpy().tolist() for each in expected]
    assert examples.labels.tolist() == [int(each["label"]) for each in expected]
    assert examples.classes == ("cat", "dog")


@pytest.mark.parametrize("split", ["train", "train[10%:75%]", "test+train[-3:]"])
def test_array_record_files_give_what_tensorflow_datasets_reads(prepare: Callable[..., Path], split: str) -> None:
    folder = prepare(Zoo, "array_record")
    expected = list(Zoo(data_dir=folder, file_format="array_record").as_data_source(split=split))
    examples = Tfds("zoo", split=split, data_dir=folder).read()
    assert decoded(examples) == [each["image"].tolist() for each in expected]
    assert examples.labels.tolist() == [each["label"] for each in expected]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_record_keeps_its_number_in_a_slice(prepare: Callable[..., Path], file_format: str) -> None:
    folder = prepare(Zoo, file_format)
    all_names = Tfds("zoo", data_dir=folder).read().names()
    assert Tfds("zoo", split="train[3:9]", data_dir=folder).read().names() == all_names[3:9]


@pytest.mark.parametrize("file_format", FORMATS)
def test_sizes_are_those_of_the_encoded_images(prepare: Callable[..., Path], file_format: str) -> None:
    examples = Tfds("zoo", split="train[2:12]", data_dir=prepare(Zoo, file_format)).read()
    assert examples.num_bytes.tolist() == [len(examples.images.read(row)) for row in examples.rows]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_list_of_classes_gives_tags(prepare: Callable[..., Path], file_format: str) -> None:
    folder = prepare(Zoo, file_format)
    numbers = [
        next(n for n in range(20) if pixels(n).tolist() == image)
        for image in decoded(Tfds("zoo", data_dir=folder).read())
    ]
    examples = Tfds("zoo", data_dir=folder, label="colors").read()
    assert (examples.label_kind, examples.classes) == ("tags", ("red", "blue"))
    assert examples.label_rows().dense(2).tolist() == [[n % 3 > 0, n % 3 > 1] for n in numbers]


def test_a_feature_of_objects_is_named_by_its_path(prepare: Callable[..., Path]) -> None:
    examples = Tfds("zoo", data_dir=prepare(Zoo), label="objects/kind").read()
    assert (examples.label_kind, examples.classes) == ("tags", ("cat", "dog"))


def test_a_text_feature_may_be_the_class(prepare: Callable[..., Path]) -> None:
    examples = Tfds("zoo", data_dir=prepare(Zoo), label="name").read()
    assert examples.classes == ("animal 0", "animal 1", "animal 2", "animal 3")
    assert examples.counts().tolist() == [5, 5, 5, 5]


def test_declared_classes_renumber_labels(prepare: Callable[..., Path]) -> None:
    folder = prepare(Zoo)
    own = Tfds("zoo", data_dir=folder).read().labels
    assert Tfds("zoo", data_dir=folder, classes=("dog", "cat")).read().labels.tolist() == (1 - own).tolist()


def test_the_only_image_feature_and_the_only_class_feature_are_used_whatever_their_names(
    prepare: Callable[..., Path],
) -> None:
    examples = Tfds("nameless", data_dir=prepare(Nameless)).read()
    assert decoded(examples) == [pixels(0).tolist()]
    assert (examples.labels.tolist(), examples.classes) == ([2], ("0", "1", "2"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "zoo", "split": "tain"},
            r"zoo/1.2.0 has no split 'tain'.*Did you mean 'train'\?.*It has train, test",
        ),
        ({"name": "zoo", "split": "train[:x]"}, r"slices are written 'train\[:10%\]'"),
        ({"name": "zoo", "split": "train[:99]"}, r"Requested slice \[:99\] incompatible with 20 examples"),
        ({"name": "zoo", "split": "train[7:3]"}, "is empty"),
        (
            {"name": "zoo", "label": "lable"},
            r"has no feature 'lable'. Did you mean 'label'\? Give `label` another name",
        ),
        ({"name": "zoo", "image": "depth"}, "'depth' is an image of float32; only uint8 and uint16"),
        ({"name": "zoo", "image": "name"}, "'name' is not an image; images are depth, image"),
        ({"name": "zoo:9.9.9"}, r"has no data set 'zoo:9.9.9', and there is none in /"),
        ({"name": "mnits"}, r"has no data set 'mnits'.*Did you mean 'mnist'\?"),
        ({"name": "mnist:3.0.1"}, r"'mnist:3.0.1'\) is not prepared in .*download=True"),
        (
            {"name": "nameless", "split": "test"},
            "#0: label -1 should be .* often means that the label is unknown",
        ),
    ],
)
def test_an_invalid_declaration_is_an_error_that_names_the_cure(
    prepare: Callable[..., Path], options: dict, message: str
) -> None:
    folder = prepare(Nameless if options["name"] == "nameless" else Zoo)
    with pytest.raises(DataError, match=message):
        Tfds(**{"data_dir": folder} | options).read()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: None])
def test_a_damaged_file_is_an_error(tmp_path: Path, file_format: str, damage: Callable[[bytes], bytes | None]) -> None:
    builder = Nameless(data_dir=tmp_path, file_format=file_format)
    builder.download_and_prepare()
    path = next(tmp_path.rglob("*-train*"))
    content = damage(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        Tfds("nameless", data_dir=tmp_path).read()


@pytest.mark.parametrize("file_format", FORMATS)
def test_images_can_be_read_inside_tf_data_by_many_threads(prepare: Callable[..., Path], file_format: str) -> None:
    examples = Tfds("zoo", data_dir=prepare(Zoo, file_format)).read()
    read = lambda row: tf.numpy_function(lambda r: examples.images.read(int(r)), [row], tf.string)  # noqa: E731
    images = tf.data.Dataset.from_tensor_slices(examples.rows).repeat(20).map(read, num_parallel_calls=8)
    assert list(images.as_numpy_iterator()) == [examples.images.read(int(row)) for row in examples.rows] * 20


def test_reading_an_image_whose_array_record_file_is_gone_is_an_error(tmp_path: Path) -> None:
    Nameless(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    examples = Tfds("nameless", data_dir=tmp_path).read()
    copy = type(examples.images)(
        ("/nowhere",), *(getattr(examples.images, n) for n in ("file", "record", "sizes", "feature"))
    )
    with pytest.raises(OSError, match="missing or not an ArrayRecord file"):
        copy.read(0)


def test_the_name_of_a_data_set_on_the_internet_is_refused() -> None:
    with pytest.raises(ConfigError, match="`name` should be a name such as .*, got 'huggingface:mnist'"):
        Tfds("huggingface:mnist")


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        MissingExtra, match=r"Tfds sources need tensorflow-datasets. Run: \.venv/bin/pip install -e '\.\[tfds\]'"
    ):
        Tfds("mnist").read()


def test_the_field_split_does_not_hide_the_method(prepare: Callable[..., Path]) -> None:
    source = Tfds("zoo", data_dir=prepare(Zoo)).changed("split", "test")
    train, val = (split.read() for split in source.split(val=0.5))
    assert sorted([*train.names(), *val.names()]) == source.read().names()


def test_a_source_survives_a_json_round_trip(tmp_path: Path) -> None:
    source = Tfds("zoo:1.*.*", split="train[:10%]", data_dir=tmp_path, classes=("dog", "cat"))
    assert Tfds.from_dict(source.to_dict()) == source
