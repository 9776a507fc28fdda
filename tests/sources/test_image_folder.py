from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_trainer import ImageFolder
from model_trainer.errors import DataError
from model_trainer.training.log import plain_messages


def touch(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for name in ("cat/2.jpg", "cat/1.JPEG", "cat/deep/er/3.png", "dog/1.webp", "dog/.hidden.jpg", ".git/x.jpg"):
        touch(tmp_path / name)
    return tmp_path


def test_classes_are_the_sorted_folders_and_images_are_found_recursively(zoo: Path) -> None:
    examples = ImageFolder(zoo).read()
    assert examples.classes == ("cat", "dog")
    names = [
        (str(Path(path).relative_to(zoo)), label) for path, label in zip(examples.names(), examples.labels, strict=True)
    ]
    assert names == [("cat/1.JPEG", 0), ("cat/2.jpg", 0), ("cat/deep/er/3.png", 0), ("dog/1.webp", 1)]


def test_declared_classes_determine_the_order_of_labels(zoo: Path) -> None:
    examples = ImageFolder(zoo, classes=("dog", "cat")).read()
    assert examples.counts().tolist() == [1, 3]


def test_a_file_without_suffix_is_an_image_if_its_first_bytes_are(zoo: Path) -> None:
    touch(zoo / "dog" / "scraped", b"\x89PNG\r\n\x1a\n....")
    touch(zoo / "dog" / "notes.txt", b"good boy")
    names = {Path(path).name for path in ImageFolder(zoo).read().names()}
    assert "scraped" in names
    assert "notes.txt" not in names


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda zoo: ImageFolder(zoo / "nothing"), r"There is no folder .*nothing. Put images into one folder"),
        (lambda zoo: ImageFolder(zoo / "cat" / "2.jpg"), "is a file; ImageFolder needs a folder"),
        (lambda zoo: ImageFolder(zoo / "dog"), "contains no class folders"),
        (lambda zoo: ImageFolder(zoo, classes=("cat", "dog", "cow")), "has no folder for the class 'cow'"),
        (lambda zoo: ImageFolder(zoo, classes=("cat", "dgo")), r"has the folder 'dog'.*Did you mean 'dgo'\?"),
    ],
)
def test_an_invalid_folder_is_an_error_that_names_the_cure(
    zoo: Path, make: Callable[[Path], ImageFolder], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make(zoo).read()


def test_a_link_to_a_folder_is_followed_unless_it_forms_a_cycle(
    zoo: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    original, more = ImageFolder(zoo).read().names(), tmp_path_factory.mktemp("more")
    (zoo / "cat" / "loop").symlink_to(zoo)
    (zoo / "cat" / "itself").symlink_to(zoo / "cat")
    (zoo / "dog" / "there").symlink_to(more)
    (more / "back").symlink_to(zoo / "dog")
    (more / "all").symlink_to(zoo)
    (zoo / "whole").symlink_to(zoo)
    (zoo / "nowhere").symlink_to(zoo / "nowhere")
    touch(more / "1.jpg")
    with plain_messages():
        names = ImageFolder(zoo).read().names()
    assert sorted(names) == sorted([*original, f"{zoo}/dog/there/1.jpg"])
    assert capfd.readouterr().err.count("is a link to a folder that contains it; it is not followed.") == 5


@pytest.mark.parametrize("form", ["TIFF", "AVIF"])
def test_tiff_and_avif_are_found_by_name_and_by_content(zoo: Path, form: str) -> None:
    suffix = {"TIFF": "tif", "AVIF": "avif"}[form]
    for name in (f"a.{suffix.upper()}", "scraped"):
        Image.new("RGB", (8, 8)).save(zoo / "dog" / name, form)
    assert {"scraped", f"a.{suffix.upper()}"} < {Path(path).name for path in ImageFolder(zoo).read().names()}


def test_raw_camera_files_are_not_images(zoo: Path) -> None:
    Image.new("RGB", (8, 8)).save(zoo / "dog" / "1.nef", "TIFF")
    assert "1.nef" not in {Path(path).name for path in ImageFolder(zoo).read().names()}


def test_a_line_break_in_a_name_is_escaped_in_messages(zoo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    touch(zoo / "dog" / "a\nERROR b.txt")
    with plain_messages():
        ImageFolder(zoo).read()
    assert "dog/a\\nERROR b.txt" in capfd.readouterr().err.splitlines()[0]


def test_skipped_files_are_counted_in_one_line(zoo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    touch(zoo / "dog" / "notes.txt", b"good boy")
    touch(zoo / "cat" / "notes.TXT", b"good girl")
    touch(zoo / "cat" / "Thumbs.db", b"....")
    touch(zoo / "cat" / ".cache" / "1.jpg")
    touch(zoo / "loose.png")
    with plain_messages():
        ImageFolder(zoo).read()
    assert capfd.readouterr().err == (
        f"Skipped in {zoo}: 3 files of other types (.txt 2, .db 1), such as {zoo}/cat/Thumbs.db; "
        f"3 hidden files or folders, such as {zoo}/.git; "
        f"1 image outside the class folders, such as {zoo}/loose.png.\n"
    )


def test_an_empty_class_folder_is_an_error(zoo: Path) -> None:
    (zoo / "eel").mkdir()
    with pytest.raises(DataError, match=r"eel contains no images. Put images of the class 'eel' there"):
        ImageFolder(zoo).read()


def test_a_split_is_stratified_reproducible_and_complete(tmp_path: Path) -> None:
    for name, count in (("cat", 40), ("dog", 10), ("eel", 2)):
        for number in range(count):
            touch(tmp_path / name / f"{number}.jpg")
    original = ImageFolder(tmp_path).read()
    train, val = (split.read() for split in ImageFolder(tmp_path).split(val=0.1))
    assert val.counts().tolist() == [4, 1, 1]
    assert sorted([*train.names(), *val.names()]) == sorted(original.names())
    again = ImageFolder(tmp_path).split(val=0.1)[1].read()
    assert again.names() == val.names()
    other = ImageFolder(tmp_path).split(val=0.1, seed=1)[1].read()
    assert other.names() != val.names()


def test_a_split_survives_a_json_round_trip(zoo: Path) -> None:
    train, val = ImageFolder(zoo).split(val=0.25, seed=3)
    assert type(val).from_dict(val.to_dict()) == val
    assert train != val


def test_classes_of_another_data_set_renumber_labels(zoo: Path) -> None:
    examples = ImageFolder(zoo).read().with_classes(("bird", "dog", "cat"))
    assert np.bincount(examples.labels, minlength=3).tolist() == [0, 1, 3]
    with pytest.raises(DataError, match="has the class 'cat', which is not one of"):
        examples.with_classes(("bird", "dog"))


def test_the_fingerprint_depends_on_paths_sizes_and_labels(zoo: Path) -> None:
    before = ImageFolder(zoo).read().fingerprint
    assert ImageFolder(zoo).read().fingerprint == before
    touch(zoo / "dog" / "1.webp", b"longer")
    assert ImageFolder(zoo).read().fingerprint != before
