"""`doctor --quarantine DIR --images CSV` moves exactly the images that the table lists."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from model_trainer.cli.doctor import doctor as command
from model_trainer.diagnosis.data import run_doctor
from model_trainer.errors import ConfigError, DataError
from model_trainer.evaluation.label_issues import LabelIssue, write_label_issues


@pytest.fixture
def data(draw_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`data/train` and `data/val` in the current folder, with three classes each."""
    draw_folder(tmp_path / "data" / "train", 4)
    draw_folder(tmp_path / "data" / "val", 2, seed=1)
    monkeypatch.chdir(tmp_path)
    return Path("data")


def quarantine(path: Path | str, table: str) -> int:
    return run_doctor(str(path), make_page=lambda _: "", output="out", quarantine="bad", images=table)


def table_of(*paths: str, columns: str = "path,label,suggested_label,label_quality,reason") -> str:
    rows = [f'{path},cat,dog,0.01,"predicted dog 0.98, cat 0.01"' for path in paths]
    Path("issues.csv").write_text("\n".join([columns, *rows]) + "\n")
    return "issues.csv"


def images_in(folder: Path | str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*.png"))


def test_exactly_the_listed_images_are_moved(data: Path) -> None:
    before = images_in(data)
    listed = ["data/train/red/1.png", "data/val/blue/0.png"]
    assert quarantine(data, table_of(*listed)) == 0
    assert images_in(data) == [path for path in before if path not in listed]
    assert images_in("bad") == ["bad/train/red/1.png", "bad/val/blue/0.png"]


def test_each_move_is_logged_with_the_reason_of_the_table(data: Path) -> None:
    quarantine(data, table_of("data/train/red/1.png"))
    with open("bad/quarantine.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {
                "from": "data/train/red/1.png",
                "to": "bad/train/red/1.png",
                "reason": "predicted dog 0.98, cat 0.01",
            }
        ]


def test_unreadable_images_that_are_not_listed_are_not_moved(data: Path) -> None:
    (data / "train" / "red" / "broken.png").write_bytes(b"")
    assert quarantine(data, table_of("data/train/red/1.png")) == 1
    assert (data / "train" / "red" / "broken.png").exists()


def test_a_table_may_have_absolute_paths_and_a_byte_order_mark(data: Path, tmp_path: Path) -> None:
    table = table_of(str(tmp_path / "data" / "train" / "red" / "1.png"))
    Path(table).write_bytes(b"\xef\xbb\xbf" + Path(table).read_bytes())
    quarantine(data, table)
    assert images_in("bad") == ["bad/train/red/1.png"]


def test_the_table_that_label_issues_writes_is_accepted(data: Path) -> None:
    write_label_issues(Path("issues.csv"), [LabelIssue("data/train/red/2.png", "red", "blue", 0.1, "why, so")])
    quarantine(data, "issues.csv")
    assert images_in("bad") == ["bad/train/red/2.png"]


def test_a_moved_image_does_not_overwrite_an_earlier_one(data: Path) -> None:
    Path("bad/train/red").mkdir(parents=True)
    Path("bad/train/red/1.png").write_bytes(b"earlier")
    quarantine(data, table_of("data/train/red/1.png"))
    assert Path("bad/train/red/1.png").read_bytes() == b"earlier"
    assert Path("bad/train/red/1-2.png").exists()


def test_listed_images_that_were_already_moved_are_skipped(data: Path) -> None:
    quarantine(data, table_of("data/train/red/1.png"))
    quarantine(data, table_of("data/train/red/1.png", "data/train/red/2.png"))
    assert images_in("bad") == ["bad/train/red/1.png", "bad/train/red/2.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/val/red/0.png", "line 3: data/val/red/0.png is not an image of data/train. Nothing was moved. Name the"),
        ("data/train/red/99.png", "line 3: there is no file data/train/red/99.png. Nothing was moved. Paths are"),
        ("", "line 3: the column 'path' is empty"),
    ],
)
def test_an_invalid_path_is_refused_before_any_image_is_moved(data: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        quarantine(data / "train", table_of("data/train/red/1.png", path))
    assert not Path("bad").exists()


def test_a_table_without_a_path_column_is_refused_with_its_columns(data: Path) -> None:
    with pytest.raises(DataError, match="issues.csv should have a column 'path', .* its columns are 'file', 'label'"):
        quarantine(data, table_of("data/train/red/1.png", columns="file,label"))


def test_a_missing_table_is_a_clear_error(data: Path) -> None:
    with pytest.raises(DataError, match="none.csv cannot be read: .*No such file"):
        quarantine(data, "none.csv")


def test_the_option_images_without_quarantine_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="`--images` needs a folder to which the listed images are moved"):
        run_doctor("data", make_page=lambda _: "", output="out", images=table_of())


def test_the_doctor_command_has_the_option_images(data: Path) -> None:
    app: Any = typer.Typer()
    app.command()(command)
    options = ["--quarantine", "bad", "--images", table_of("data/train/red/1.png"), "--output", "out"]
    result = CliRunner().invoke(app, ["data", *options])
    assert result.exit_code == 0, result.output
    assert images_in("bad") == ["bad/train/red/1.png"]
