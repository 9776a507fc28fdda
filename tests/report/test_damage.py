"""Output folders with damaged, endless, oversized or hostile files give one message, or a page without these files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import DataError
from model_trainer.report import report as report_module
from model_trainer.report.report import MAX_PAGE_BYTES, render_report, write_report
from model_trainer.report.run_files import read_run
from model_trainer.report.snippet import plain_keras

MakeFolder = Callable[..., Path]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def message_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert exit_code_of(lambda: app(["report", str(folder)])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_a_lone_surrogate_of_an_earlier_version_is_read(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    evaluation["galleries"][0]["images"][0]["image"] = "data/caf_.jpg"
    path = make_folder(evaluation=evaluation)
    file = path / "evaluation" / "evaluation.json"
    file.write_text(file.read_text().replace("caf_", "caf\\udce9"))
    assert "caf\\udce9.jpg" in write_report(path).read_text()
    evaluated = read_run(path).evaluation
    assert evaluated is not None
    assert evaluated.galleries[0].images[0].image.isprintable()


DAMAGED = {
    "nested evaluation": ("evaluation/evaluation.json", '{"a":' * 100_000),
    "nested options": ("training_options.json", "[" * 100_000),
    "huge count": ("evaluation/evaluation.json", '{"data": {"images": 1%s}}' % ("0" * 400)),
    "number of many digits": ("evaluation/evaluation.json", '{"version": 1%s}' % ("0" * 5_000)),
    "long field": ("history.csv", "epoch,loss\n1," + "9" * 200_000 + "\n"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_gives_one_message_without_a_traceback(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    folder = make_folder()
    (folder / name).write_text(content)
    assert message_of(folder, capsys).startswith(f"Error: {folder / name} is damaged: ")


BIG = 10**400


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["confusion"]["matrix"].__setitem__(0, [BIG, 0, 0]),
        lambda content: content["per_class"].update(images=[BIG] * 3),
        lambda content: content["metrics"]["accuracy"].update(value=BIG),
        lambda content: content["confusion"]["matrix"].__setitem__(0, [-1, 0, 0]),
    ],
)
def test_an_absurd_number_in_an_evaluation_gives_one_message(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], change: Callable[[Any], Any]
) -> None:
    folder = make_folder()
    edit(folder / "evaluation" / "evaluation.json", change)
    assert "evaluation.json is damaged: " in message_of(folder, capsys)


HARMLESS = {
    "steps nested": ("logs/metrics.jsonl", '{"kind": "step", "step": 1, "x": ' + "[" * 100_000 + "\n"),
    "steps of any size": ("logs/metrics.jsonl", f'{{"kind": "step", "step": {BIG}, "loss": 1.0}}\n' * 3),
    "loss of any size": (
        "logs/metrics.jsonl",
        f'{{"kind": "step", "step": 1, "loss": {BIG}, "images_per_second": {BIG}}}\n' * 3,
    ),
    "one epoch": ("history.csv", "epoch,loss,accuracy\n1e300,1,0.5\n"),
    "one large epoch": ("history.csv", "epoch,loss,accuracy\n9e15,1,0.5\n"),
    "seconds": ("history.csv", "epoch,loss,seconds\n1,1,1e308\n2,1,1e308\n"),
}


@pytest.mark.parametrize(("name", "content"), HARMLESS.values(), ids=HARMLESS)
def test_absurd_values_in_the_logs_do_not_prevent_the_page(make_folder: MakeFolder, name: str, content: str) -> None:
    folder = make_folder()
    (folder / name).write_text(content)
    assert "0.717" in write_report(folder).read_text()


@pytest.mark.parametrize(
    "spec",
    [
        {"target_size": [1, 2, [3]]}, {"target_size": ["import os", {}, 3]}, {"target_size": [1e300, 1, 3]},
        {"preprocess_args": ["a"]}, {"preprocess_args": 5}, {"background": 7},
        {"background": ["__import__('os').system('x')", 0, 0], "resize": "pad"},
    ],
)  # fmt: skip
def test_an_invalid_spec_gives_no_code_snippet(make_folder: MakeFolder, spec: dict[str, Any]) -> None:
    folder = make_folder()
    assert plain_keras(read_run(folder))
    edit(folder / "model_spec.json", lambda content: content.update(spec))
    assert plain_keras(read_run(folder)) == []
    write_report(folder)


def test_an_unexpected_error_names_the_folder_and_keeps_its_cause(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    monkeypatch.setattr(report_module, "facts", lambda run: 1 / 0)
    with pytest.raises(DataError, match=f"{folder} is damaged") as raised:
        write_report(folder)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


ENDLESS = ["history.csv", "evaluation/evaluation.json", "training_options.json", "findings.json", "bad_images.csv"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_is_not_a_regular_file_gives_one_message(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    folder = make_folder()
    path = folder / name
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "device": lambda path: os.symlink("/dev/zero", path), "folder": os.mkdir}[kind](path)
    assert message_of(folder, capsys).startswith(f"Error: {path} cannot be read: ")


@pytest.mark.parametrize("name", ["logs/metrics.jsonl", "logs/train.log", "evaluation/images/0.jpg"])
def test_a_log_or_picture_that_is_not_a_regular_file_is_left_out(make_folder: MakeFolder, name: str) -> None:
    for number, make in enumerate((os.mkfifo, lambda path: os.symlink("/dev/zero", path))):
        folder = make_folder(f"run {number}")
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        assert "0.717" in write_report(folder).read_text()


def test_only_the_end_of_a_long_log_is_read(make_folder: MakeFolder) -> None:
    folder = make_folder()
    lines = "2026-11-26 17:33:54,937 WARNING The first.\n" + "x" * 5_000_000 + "\n"
    (folder / "logs" / "train.log").write_text(f"{lines}2026-11-26 17:33:54,937 WARNING The last.\n")
    assert read_run(folder).warnings == ["The last."]


@pytest.mark.parametrize("link", ["evaluation/images/0.jpg", "evaluation/images", "report/examples"])
def test_pictures_behind_links_out_of_the_folder_are_not_embedded(
    make_folder: MakeFolder, tmp_path: Path, link: str
) -> None:
    folder = make_folder(galleries=None) if link == "report/examples" else make_folder()
    pictures = tmp_path / "elsewhere"
    (folder / "evaluation" / "images").rename(pictures)
    path = folder / link
    path.parent.mkdir(parents=True, exist_ok=True)
    example = {"name": "a", "original": "examples/0.jpg"}
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "data.json").write_text(json.dumps({"examples": [example]}))
    path.symlink_to(pictures / "0.jpg" if link.endswith(".jpg") else pictures, target_is_directory=True)
    assert "<img" not in write_report(folder).read_text()


def test_pictures_are_embedded_if_the_output_folder_itself_is_a_link(make_folder: MakeFolder, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(make_folder(), target_is_directory=True)
    assert "<img" in render_report(read_run(link))


def test_a_page_that_is_too_large_even_without_pictures_omits_its_largest_section(make_folder: MakeFolder) -> None:
    count = 2_000
    folder = make_folder(
        classes=[f"{'&' * 290}{number}" for number in range(count)],  # each character takes five bytes in the page
        confusion=None, galleries=None, per_class={"images": [1] * count},
    )  # fmt: skip
    path = write_report(folder)
    assert path.stat().st_size <= MAX_PAGE_BYTES
    page = path.read_text()
    assert "Left out, to keep this page small: Classes." in page
    assert '<section id="classes"' not in page
    assert '<section id="metrics"' in page


def test_pictures_are_omitted_before_sections(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    page = write_report(folder).read_text()
    monkeypatch.setattr(report_module, "MAX_PAGE_BYTES", len(page.encode()) - 100)
    monkeypatch.setattr(report_module, "ENOUGH_WITHOUT", 0)
    smaller = write_report(folder).read_text()
    assert page.count("<img") > smaller.count("<img") > 0
    assert smaller.count("<section") == page.count("<section")


def test_only_the_first_of_many_findings_and_examples_are_shown(make_folder: MakeFolder) -> None:
    folder = make_folder()
    example = {"name": "n" * 1_000}
    finding = {"id": "x", "level": "fault", "title": "t" * 1_000, "count": 99, "examples": [example] * 50}
    (folder / "findings.json").write_text(json.dumps([finding] * 150))
    page = write_report(folder).read_text()
    assert page.count('<article class="finding') == 100
    assert "findings.json has 50 more." in page
    assert page.count("<summary>24 of 99</summary>") == 100
    assert not re.search("[tn]{301}", page)


def test_only_the_first_of_many_metrics_and_settings_are_shown(make_folder: MakeFolder) -> None:
    folder = make_folder()
    names = [f"metric{number}" for number in range(200)]
    (folder / "history.csv").write_text(f"epoch,{','.join(names)}\n1,{','.join('1' * 200)}\n")
    edit(folder / "training_options.json", lambda content: content["run"].update({f"x{k}": k for k in range(900)}))
    page = write_report(folder).read_text()
    assert len(re.findall(r"<figcaption>Metric\d+ ", page)) == 40
    assert page[page.index('id="settings"') :].count("<tr>") == 301


def test_an_evaluation_without_classes_has_a_report(make_folder: MakeFolder) -> None:
    folder = make_folder(classes=None, per_class={}, confusion=None)
    assert "0.717" in write_report(folder).read_text()


def test_the_heading_of_labels_follows_label_kind_whatever_the_task(make_folder: MakeFolder) -> None:
    folder = make_folder(task="MyTask", label_kind="tags")
    assert ">Tags</h2>" in write_report(folder).read_text()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("sandal 0.96", ""),
        ("sandal 0.96, is ankle-boot 0.00", "ankle-boot 0.00"),
        ("sandal 0.96, which it is not", "sandal 0.96, which it is not"),
        ("boot 0.50", "boot 0.50"),
    ],
)
def test_a_caption_does_not_repeat_the_label_above_it(
    make_folder: MakeFolder, evaluation: dict[str, Any], caption: str, expected: str
) -> None:
    image = evaluation["galleries"][0]["images"][0]
    image |= {"predicted": ["sandal"], "probability": 0.9613, "caption": caption}
    evaluation["galleries"] = [evaluation["galleries"][0] | {"images": [image]}]
    page = write_report(make_folder(evaluation=evaluation)).read_text()
    below = page.partition('<span class="wrong">sandal</span>')[2].partition("</figcaption>")[0]
    assert re.findall(r"<span>([^<]*)</span>", below) == [*([expected] if expected else []), "0.jpg"]
