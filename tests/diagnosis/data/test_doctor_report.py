"""What the doctor writes and prints, its exit codes, and Ctrl-C."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from model_trainer.diagnosis.data import doctor, examine, run_doctor
from model_trainer.diagnosis.data.progress import ReadingProgress
from model_trainer.diagnosis.data.show import print_diagnosis
from model_trainer.diagnosis.data.splits import find_splits
from model_trainer.diagnosis.data.survey import survey_images
from model_trainer.errors import ConfigError, DataError
from model_trainer.report.doctor import doctor_page


def test_json_and_page_have_the_same_findings(colors: Path, tmp_path: Path) -> None:
    code = run_doctor(str(colors), make_page=doctor_page, output=str(tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    page = (tmp_path / "out" / "doctor.html").read_text()
    assert report["num_images"] == 24
    assert report["classes"] == {name: {"blue": n, "green": n, "red": n} for name, n in (("train", 5), ("val", 3))}
    assert report["exit_code"] == code == 0
    assert [finding["id"] for finding in report["findings"]] == re.findall(
        r'<section class="finding \w+" id="([^"]+)"', page
    )


def test_a_finding_shows_at_most_24_pictures(colors: Path, draw_folder: object, tmp_path: Path) -> None:
    draw_folder(tmp_path / "many", 15)  # type: ignore[operator]
    finding = next(each for each in examine(tmp_path / "many", min_size=64).findings if each.id == "tiny")
    assert (finding.count, len(finding.examples)) == (45, 24)


def test_the_terminal_lists_findings_examples_and_cures(colors: Path) -> None:
    console = Console(width=400, file=io.StringIO())
    print_diagnosis(examine(colors, min_size=64), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "24 images with a side below 64 pixels" in printed
    assert "train/blue/0.png  32 × 32" in printed
    assert "--set spec.target_size=[64,64,3]" in printed


def test_a_narrow_terminal_does_not_break_paths_and_shows_a_common_cure_once(tmp_path: Path) -> None:
    names = [f"{'a-long-file-name-' * 4}{number}.jpg" for number in range(3)]
    (tmp_path / "cat").mkdir()
    for name in names:
        (tmp_path / "cat" / name).write_bytes(b"not an image")
    (tmp_path / "cat" / "truncated.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    print_diagnosis(examine(tmp_path), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for name in names:
        assert str(tmp_path / "cat" / name) in printed
    assert printed.count("Download or copy them again") == 1


def test_ctrl_c_gives_130_and_no_file(colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "survey_splits", interrupt)
    assert run_doctor(str(colors), make_page=doctor_page, output=str(tmp_path / "out")) == 130
    assert not (tmp_path / "out").exists()


def test_an_interrupted_survey_leaves_no_thread_running(colors: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        survey_images(find_splits(str(colors)), 10**6, interrupt)
    assert threading.active_count() == before


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        examine(tmp_path / "nothing")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no image"):
        examine(tmp_path)


def test_a_pixel_limit_above_that_of_training_is_refused(colors: Path) -> None:
    with pytest.raises(ConfigError, match="MODEL_TRAINER_MAX_PIXELS"):
        examine(colors, max_pixels=10**12)


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 5.0, 15.0, 30.0))
    monkeypatch.setattr("model_trainer.diagnosis.data.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ReadingProgress(Console(stderr=True), "Reading") as progress:
        progress.update(0, 2500)
        progress.update(1000, 2500)
        progress.update(2500, 2500)
    assert capsys.readouterr().err == "Reading  1,000/2,500  100 images/s  15 s left\n"
