"""Each finding on a data set with one example of every problem, and none on a clean data set."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_trainer.diagnosis.data import Diagnosis, Finding, examine
from model_trainer.errors import ConfigError

SIZE = 48


def photo(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Smooth noise that differs for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def clean(root: Path, classes: dict[str, int], first: int = 0) -> Path:
    """Writes `classes[name]` different photos into each folder `root/name`, with seeds from `first` on."""
    seed = first
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            photo(seed).save(root / name / f"{number}.png")
            seed += 1
    return root


def bomb_png() -> bytes:
    """A file of a few bytes whose header declares 60,000 by 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def by_id(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.id: finding for finding in diagnosis.findings}


def names_by_id(diagnosis: Diagnosis, root: Path) -> dict[str, list[str]]:
    """The paths of the images of each finding, relative to `root`; for a finding without images its examples."""
    return {
        finding.id: [
            Path(each).relative_to(root).as_posix()
            for each in (diagnosis.survey.name(int(image)) for image in finding.images)
        ]
        or [example.name for example in finding.examples]
        for finding in diagnosis.findings
    }


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/` with the classes cat, dog, Dog, empty and rare, `val/` with cat, dog and owl; one file per problem."""
    root = tmp_path_factory.mktemp("scrape")
    train = clean(root / "train", {"cat": 120, "dog": 12, "rare": 3, "Dog": 10})
    (train / "empty").mkdir()
    val = clean(root / "val", {"cat": 3, "dog": 2, "owl": 1}, first=1000)
    cat = train / "cat"
    (cat / "a_zero.jpg").write_bytes(b"")
    (cat / "b_truncated.jpg").write_bytes(encoded(photo(2000), "JPEG")[:-200])
    (cat / "c_text.jpg").write_bytes(b"<html>404 Not Found</html>")
    (cat / "d_bomb.png").write_bytes(bomb_png())
    (cat / "e_jpeg.png").write_bytes(encoded(photo(2001), "JPEG"))
    frames = [photo(seed).convert("P") for seed in (2002, 2003)]
    (cat / "f_animated.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    (cat / "g_cmyk.jpg").write_bytes(encoded(photo(2004).convert("CMYK"), "JPEG"))
    deep = np.asarray(photo(2005).convert("L")).astype(np.uint16) * 257
    (cat / "h_deep.png").write_bytes(encoded(Image.fromarray(deep), "PNG"))
    photo(2006, (20, 20)).save(cat / "i_tiny.png")
    photo(2007, (400, 40)).save(cat / "j_strip.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    (cat / "k_turned.jpg").write_bytes(encoded(photo(2008, (48, 64)), "JPEG", exif=exif))
    Image.new("RGB", (SIZE, SIZE), (250, 250, 250)).save(cat / "l_blank.png")
    (cat / "m_gone.jpg").symlink_to(root / "nowhere.jpg")
    (cat / "n_copy.png").write_bytes((cat / "0.png").read_bytes())
    (cat / "o_near.jpg").write_bytes(encoded(photo(1), "JPEG", quality=60))  # cat/1.png is photo(1)
    (cat / "p_other_label.png").write_bytes((train / "dog" / "0.png").read_bytes())
    (val / "cat" / "leaked.png").write_bytes((cat / "2.png").read_bytes())
    (cat / "notes.txt").write_text("from the web")
    photo(2009).save(train / "loose.png")
    return root


@pytest.fixture(scope="module")
def dirty_diagnosis(dirty: Path) -> Diagnosis:
    return examine(dirty)


@pytest.mark.parametrize(
    ("id", "images"),
    [
        ("zero-byte", ["train/cat/a_zero.jpg"]),
        ("truncated", ["train/cat/b_truncated.jpg"]),
        ("unreadable", ["train/cat/c_text.jpg"]),
        ("decompression-bomb", ["train/cat/d_bomb.png"]),
        ("wrong-suffix", ["train/cat/e_jpeg.png"]),
        ("animated", ["train/cat/f_animated.gif"]),
        ("cmyk", ["train/cat/g_cmyk.jpg"]),
        ("16-bit", ["train/cat/h_deep.png"]),
        ("tiny", ["train/cat/i_tiny.png"]),
        ("extreme-aspect", ["train/cat/j_strip.png"]),
        ("exif-orientation", ["train/cat/k_turned.jpg"]),
        ("blank", ["train/cat/l_blank.png"]),
        ("missing-file", ["train/cat/m_gone.jpg"]),
        ("duplicates", ["train/cat/n_copy.png"]),
        ("near-duplicates", ["train/cat/o_near.jpg"]),
        ("duplicates-across-labels", ["train/cat/p_other_label.png", "train/dog/0.png"]),
        ("duplicates-across-splits", ["val/cat/leaked.png"]),
        ("empty-class", ["empty", "owl"]),
        ("similar-labels", ["Dog", "dog"]),
        ("tiny-class", ["rare"]),
        ("imbalance", ["rare", "Dog", "dog"]),
        ("not-validated", ["Dog", "rare"]),
    ],
)
def test_a_finding_names_the_affected_images_or_classes_only(
    dirty_diagnosis: Diagnosis, dirty: Path, id: str, images: list[str]
) -> None:
    assert names_by_id(dirty_diagnosis, dirty)[id] == images


def test_files_that_are_not_images_are_found(dirty_diagnosis: Diagnosis, dirty: Path) -> None:
    assert [each.name for each in by_id(dirty_diagnosis)["no-image"].examples] == [str(dirty / "train/cat/notes.txt")]
    assert ".txt 1" in by_id(dirty_diagnosis)["no-image"].why


def test_images_outside_the_class_folders_are_found(dirty_diagnosis: Diagnosis, dirty: Path) -> None:
    assert [each.name for each in by_id(dirty_diagnosis)["no-class-folder"].examples] == [
        str(dirty / "train/loose.png")
    ]


def test_there_is_no_other_finding(dirty_diagnosis: Diagnosis) -> None:
    expected = 24
    assert len(dirty_diagnosis.findings) == len(by_id(dirty_diagnosis)) == expected


def test_faults_come_first_and_set_the_exit_code_to_1(dirty_diagnosis: Diagnosis) -> None:
    levels = [finding.level for finding in dirty_diagnosis.findings]
    assert levels == sorted(levels, key=["fault", "warning", "note"].index)
    assert {finding.id for finding in dirty_diagnosis.findings if finding.level == "fault"} == {
        *("zero-byte", "truncated", "unreadable", "decompression-bomb", "missing-file", "empty-class"),
        *("duplicates-across-labels", "duplicates-across-splits"),
    }
    assert dirty_diagnosis.exit_code == 1


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    clean(tmp_path / "train", {"cat": 10, "dog": 10})
    clean(tmp_path / "val", {"cat": 2, "dog": 2}, first=500)
    diagnosis = examine(tmp_path)
    assert [finding.id for finding in diagnosis.findings] == []
    assert diagnosis.exit_code == 0


def test_the_built_in_sample_has_only_near_duplicates_and_tiny_images(tmp_path: Path) -> None:
    from model_trainer.sources.sample import unpack_sample

    diagnosis = examine(unpack_sample(tmp_path / "sample"))
    assert diagnosis.exit_code == 0
    assert set(by_id(diagnosis)) == {"near-duplicates", "tiny"}
    assert by_id(diagnosis)["near-duplicates"].count > 100


def test_crops_outside_the_image_are_found(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    rows = ["filename,label,crop"]
    for crop in ("", "[0, 0, 48, 48]", "[10, 10, 20, 30]", "[1, 0, 48, 48]", "[0, 40, 8, 9]"):
        rows.append(f'a.png,{"cat" if len(rows) % 2 else "dog"},"{crop}"')
    (tmp_path / "data.csv").write_text("\n".join(rows))
    diagnosis = examine(tmp_path / "data.csv")
    assert [each.detail for each in by_id(diagnosis)["crop-outside"].examples] == [
        "crop [1, 0, 48, 48] of an image of 48 × 48",
        "crop [0, 40, 8, 9] of an image of 48 × 48",
    ]
    assert by_id(diagnosis)["crop-outside"].level == "fault"


def test_different_crops_of_a_file_are_not_duplicates(tmp_path: Path) -> None:
    photo(1, (96, 48)).save(tmp_path / "a.png")
    (tmp_path / "data.csv").write_text('filename,label,crop\na.png,cat,"[0,0,48,48]"\na.png,dog,"[48,0,48,48]"\n')
    assert "duplicates-across-labels" not in by_id(examine(tmp_path / "data.csv"))


def test_manifest_rows_whose_file_is_missing_are_found(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "data.csv").write_text("filename,label\na.png,cat\nb.png,dog\n")
    diagnosis = examine(tmp_path / "data.csv")
    assert [each.name for each in by_id(diagnosis)["missing-file"].examples] == [str(tmp_path / "b.png")]


def test_the_splits_of_a_manifest_are_compared(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "data.csv").write_text("filename,label,split\na.png,cat,train\na.png,cat,val\n")
    diagnosis = examine(tmp_path / "data.csv")
    assert [split.name for split in diagnosis.survey.splits] == ["train", "val"]
    assert by_id(diagnosis)["duplicates-across-splits"].count == 1


def test_identical_images_with_different_tags_are_a_fault(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "data.csv").write_text("filename,tags\na.png,red|blue\na.png,red\na.png,blue|red\n")
    assert by_id(examine(tmp_path / "data.csv"))["duplicates-across-labels"].count == 3


def test_multi_label_training_is_not_suggested_for_data_with_tags(tmp_path: Path) -> None:
    from model_trainer import ImageFolder, ModelSpec, MultiLabel, Run

    for name in ("red", "blue"):
        (tmp_path / "all" / name).mkdir(parents=True)
        photo(1).save(tmp_path / "all" / name / "a.png")
    run = Run(spec=ModelSpec.named("mobilenet_v1"), train_data=ImageFolder(tmp_path / "all"))
    (tmp_path / "data.csv").write_text("filename,tags\nall/red/a.png,red|blue\nall/red/a.png,red\n")

    def cure(data: Run | Path) -> str:
        return by_id(examine(data))["duplicates-across-labels"].cure

    assert "train a tagger: task=MultiLabel()" in cure(run)
    assert cure(run.changed("task", MultiLabel())) == "Keep one copy, with all tags that apply to it."
    assert cure(tmp_path / "data.csv") == "Keep one copy, with all tags that apply to it."


def test_hidden_files_are_counted(tmp_path: Path) -> None:
    clean(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    names = [each.name for each in by_id(examine(tmp_path))["hidden"].examples]
    assert names == [str(tmp_path / ".git"), str(tmp_path / "cat" / ".DS_Store")]


def test_a_manifest_is_examined_with_root_and_classes(tmp_path: Path) -> None:
    clean(tmp_path / "images", {"cat": 10, "dog": 10})
    rows = [f"{name}/{number}.png,{label},{split}" for label, name in enumerate(("cat", "dog"))
            for number, split in zip(range(10), ["train"] * 7 + ["val"] * 3, strict=True)]  # fmt: skip
    (tmp_path / "data.csv").write_text("\n".join(["filename,class_id,split", *rows]))
    diagnosis = examine(tmp_path / "data.csv", root=str(tmp_path / "images"), classes=("cat", "dog"))
    assert "missing-file" not in by_id(diagnosis)
    assert diagnosis.classes == {"train": {"cat": 7, "dog": 7}, "val": {"cat": 3, "dog": 3}}
    folder = examine(tmp_path / "images", classes=("dog", "cat"))
    assert list(folder.classes["all"]) == ["dog", "cat"]


def test_options_that_the_data_does_not_allow_are_refused(tmp_path: Path, colors: Path) -> None:
    from model_trainer import ImageFolder, ModelSpec, Run

    run = Run(spec=ModelSpec.named("mobilenet_v1"), train_data=ImageFolder(colors / "train"))
    with pytest.raises(ConfigError, match=r"`--root` is for the paths in a manifest or .lst, which .*train is not"):
        examine(colors / "train", root="images")
    with pytest.raises(ConfigError, match=r"`--classes` cannot be used with a run"):
        examine(run, classes=("blue", "red"))


def test_a_folder_without_class_folders_is_examined(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"")
    assert names_by_id(examine(tmp_path), tmp_path) == {"zero-byte": ["b.jpg"], "no-classes": [str(tmp_path)]}


def test_a_class_named_train_is_not_mistaken_for_a_split(tmp_path: Path) -> None:
    clean(tmp_path, {"bus": 10, "train": 10})
    assert examine(tmp_path).classes == {"all": {"bus": 10, "train": 10}}


def test_the_data_of_a_run_is_examined(colors: Path, tmp_path: Path) -> None:
    from model_trainer import ImageFolder, ModelSpec, Run

    spec = ModelSpec.named("mobilenet_v1")
    run = Run(spec=spec, train_data=ImageFolder(colors / "train", classes=("blue", "green", "pink")))
    diagnosis = examine(run)
    assert {each.name for each in by_id(diagnosis)["empty-class"].examples} == {"pink"}
    assert {each.name for each in by_id(diagnosis)["unknown-class"].examples} == {"red"}


def test_the_pixel_limit_can_be_set(tmp_path: Path) -> None:
    clean(tmp_path, {"cat": 10, "dog": 10})
    photo(99, (100, 100)).save(tmp_path / "cat" / "large.png")
    diagnosis = examine(tmp_path, max_pixels=50 * 50)
    assert names_by_id(diagnosis, tmp_path) == {"decompression-bomb": ["cat/large.png"]}


def test_a_named_pipe_in_a_class_folder_is_unreadable_and_does_not_block(tmp_path: Path) -> None:
    import os

    clean(tmp_path, {"cat": 10, "dog": 10})
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    assert names_by_id(examine(tmp_path), tmp_path) == {"unreadable": ["cat/pipe.jpg"]}


def test_undecodable_and_hostile_file_names_are_escaped_in_json_and_page(tmp_path: Path) -> None:
    import os

    from model_trainer.report.doctor import doctor_page

    clean(tmp_path, {"<b>cat": 10, "dog": 10})
    with open(os.fsencode(tmp_path / "dog") + b"/\xff\x1b[31m<script>.jpg", "wb"):
        pass
    diagnosis = examine(tmp_path)
    page = doctor_page(diagnosis)
    page.encode()
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "<b>cat" not in page.replace("<b>cat</b>", "")
    assert json.loads(json.dumps(diagnosis.to_dict()))["findings"][0]["id"] == "zero-byte"


def test_a_large_jpeg_is_decoded_at_reduced_size_and_reported_with_its_full_size(tmp_path: Path) -> None:
    clean(tmp_path, {"cat": 10, "dog": 10})
    large = photo(99, (1600, 1200))
    large.save(tmp_path / "cat" / "large.jpg", quality=95)
    large.resize((160, 120)).save(tmp_path / "dog" / "small.png")
    dot = Image.new("RGB", (800, 800), "white")
    dot.paste((0, 0, 0), (400, 400, 403, 403))
    dot.save(tmp_path / "cat" / "dot.jpg", quality=95)
    Image.new("RGB", (800, 800), "white").save(tmp_path / "cat" / "white.jpg", quality=95)
    data = encoded(photo(98, (1600, 1200)), "JPEG")
    (tmp_path / "dog" / "half.jpg").write_bytes(data[: len(data) // 2])
    diagnosis = examine(tmp_path)
    assert {each.name for each in by_id(diagnosis)["near-duplicates"].examples} >= {
        str(tmp_path / "cat" / "large.jpg"),
        str(tmp_path / "dog" / "small.png"),
    }
    assert names_by_id(diagnosis, tmp_path)["truncated"] == ["dog/half.jpg"]
    survey = diagnosis.survey
    rows = {Path(survey.name(image)).name: survey.columns[image] for image in range(len(survey))}
    assert (rows["large.jpg"]["width"], rows["large.jpg"]["height"]) == (1600, 1200)
    assert (bool(rows["dot.jpg"]["is_blank"]), bool(rows["white.jpg"]["is_blank"])) == (False, True)
