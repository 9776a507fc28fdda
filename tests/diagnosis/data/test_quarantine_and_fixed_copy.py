"""Moving unreadable files to a quarantine folder, and writing a fixed copy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from model_trainer.diagnosis.data import run_doctor
from model_trainer.diagnosis.data.fixed_copy import write_fixed_copy
from model_trainer.diagnosis.data.splits import find_splits
from model_trainer.diagnosis.data.survey import Survey, survey_images
from model_trainer.errors import DataError, StorageError


def photo(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`data/cat` and `data/dog`, ten images each."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            photo(10 * label + number).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def doctor(path: Path, **options: str) -> int:
    output = str(path.parent / "out")
    return run_doctor(str(path), make_page=lambda _: "", output=output, **options)  # type: ignore[arg-type]


def survey_of(path: Path) -> Survey:
    return survey_images(find_splits(str(path)), 10**6)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_quarantine_moves_bad_files_and_the_remaining_data_passes(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "dog" / "text.jpg").write_bytes(b"not an image")
    assert doctor(folder) == 1
    assert doctor(folder, quarantine=str(tmp_path / "bad")) == 0
    assert (tmp_path / "bad" / "dog" / "text.jpg").read_bytes() == b"not an image"
    assert not (folder / "dog" / "text.jpg").exists()
    assert len(list(folder.rglob("*.png"))) == 20


def test_quarantine_logs_each_move(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    doctor(folder, quarantine=str(tmp_path / "bad"))
    (folder / "cat" / "text.jpg").write_bytes(b"not an image")
    doctor(folder, quarantine=str(tmp_path / "bad"))
    assert rows(tmp_path / "bad" / "quarantine.csv") == [
        {
            "from": str(folder / "cat" / "empty.jpg"),
            "to": str(tmp_path / "bad" / "cat" / "empty.jpg"),
            "reason": "is empty (0 bytes)",
        },
        {
            "from": str(folder / "cat" / "text.jpg"),
            "to": str(tmp_path / "bad" / "cat" / "text.jpg"),
            "reason": "is not an image",
        },
    ]


def test_quarantine_never_overwrites(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "cat" / "text.jpg").write_bytes(b"earlier")
    (folder / "cat" / "text.jpg").write_bytes(b"later")
    doctor(folder, quarantine=str(tmp_path / "bad"))
    assert (tmp_path / "bad" / "cat" / "text.jpg").read_bytes() == b"earlier"
    assert (tmp_path / "bad" / "cat" / "text-2.jpg").read_bytes() == b"later"


def test_a_class_emptied_by_quarantine_is_a_fault(folder: Path, tmp_path: Path) -> None:
    (folder / "owl").mkdir()
    (folder / "owl" / "text.jpg").write_bytes(b"not an image")
    assert doctor(folder, quarantine=str(tmp_path / "bad")) == 1


def test_quarantine_inside_the_data_set_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="is inside"):
        doctor(folder, quarantine=str(folder / "bad"))


@pytest.mark.parametrize("option", ["quarantine", "fix"])
def test_a_manifest_is_neither_moved_nor_fixed(folder: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "data.csv").write_text("filename,label\ndata/cat/0.png,cat\n")
    with pytest.raises(DataError, match="works for folders"):
        doctor(tmp_path / "data.csv", **{option: str(tmp_path / "other")})


def test_the_fixed_copy_has_all_files_except_changed_and_broken_ones(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "cat" / "notes.txt").write_text("kept")
    (folder / "cat" / "wrong.png").write_bytes(jpeg(photo(50)))
    doctor(folder, fix=str(tmp_path / "fixed"))
    before = {path.relative_to(folder) for path in folder.rglob("*.*")}
    after = {path.relative_to(tmp_path / "fixed") for path in (tmp_path / "fixed").rglob("*.*")}
    assert before - after == {Path("cat/broken.jpg"), Path("cat/wrong.png")}
    assert after - before == {Path("cat/wrong.jpg"), Path("fixed.csv")}
    assert (tmp_path / "fixed/cat/0.png").samefile(folder / "cat/0.png")
    assert [row["change"] for row in rows(tmp_path / "fixed" / "fixed.csv")] == [
        "left out: is truncated",
        "renamed",
    ]


def jpeg(image: Image.Image, **options: object) -> bytes:
    import io

    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def test_a_renamed_image_does_not_overwrite_another(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "wrong.png").write_bytes(jpeg(photo(50)))
    (folder / "cat" / "wrong.jpg").write_bytes(jpeg(photo(51)))
    write_fixed_copy(survey_of(folder), tmp_path / "fixed")
    assert (tmp_path / "fixed/cat/wrong.jpg").read_bytes() == jpeg(photo(51))
    assert (tmp_path / "fixed/cat/wrong-2.jpg").read_bytes() == jpeg(photo(50))


def test_rotated_images_are_upright_in_the_fixed_copy(folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "cat" / "turned.jpg").write_bytes(jpeg(photo(50), exif=exif, quality=95))
    write_fixed_copy(survey_of(folder), tmp_path / "fixed")
    with Image.open(tmp_path / "fixed/cat/turned.jpg") as fixed, Image.open(folder / "cat/turned.jpg") as original:
        assert fixed.getexif().get(0x0112, 1) == 1
        upright = ImageOps.exif_transpose(original)
        assert fixed.size == upright.size == (40, 48)
        difference = np.asarray(fixed).astype(int) - np.asarray(upright)
        assert np.abs(difference).mean() < 2


def test_cmyk_and_16_bit_images_become_8_bit_rgb(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "print.jpg").write_bytes(jpeg(photo(50).convert("CMYK")))
    deep = np.asarray(photo(51).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "cat" / "deep.png")
    write_fixed_copy(survey_of(folder), tmp_path / "fixed")
    with Image.open(tmp_path / "fixed/cat/print.jpg") as image:
        assert image.mode == "RGB"
    with Image.open(tmp_path / "fixed/cat/deep.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image)[..., 0], deep // 257)


def test_an_animation_is_replaced_by_its_first_frame(folder: Path, tmp_path: Path) -> None:
    frames = [photo(50).convert("P"), photo(51).convert("P")]
    frames[0].save(folder / "cat" / "two.gif", save_all=True, append_images=frames[1:])
    write_fixed_copy(survey_of(folder), tmp_path / "fixed")
    with Image.open(tmp_path / "fixed/cat/two.png") as image:
        assert getattr(image, "n_frames", 1) == 1
        np.testing.assert_array_equal(np.asarray(image), np.asarray(frames[0].convert("RGB")))


def test_a_fixed_copy_of_the_fixed_copy_changes_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "wrong.png").write_bytes(jpeg(photo(50).convert("CMYK")))
    assert write_fixed_copy(survey_of(folder), tmp_path / "fixed") == 1
    assert write_fixed_copy(survey_of(tmp_path / "fixed"), tmp_path / "again") == 0


def test_a_target_folder_that_is_not_empty_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fixed").mkdir()
    (tmp_path / "fixed" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        doctor(folder, fix=str(tmp_path / "fixed"))


def test_an_interrupted_copy_leaves_no_folder(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fixed_copy(survey_of(folder), tmp_path / "fixed", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_quarantine_moves_no_file_if_it_cannot_write_its_log(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (tmp_path / "bad" / "quarantine.csv").mkdir(parents=True)
    with pytest.raises(StorageError, match="Could not move files"):
        doctor(folder, quarantine=str(tmp_path / "bad"))
    assert (folder / "cat" / "empty.jpg").exists()


def test_a_file_named_fixed_csv_in_the_data_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    old = folder / "fixed.csv"
    old.write_text("from,to,change\n")
    write_fixed_copy(survey_of(folder), tmp_path / "fixed")
    assert old.read_text() == "from,to,change\n"
