"""The report of a run, made from files written by hand."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_trainer import Call, Classification, ImageFolder, ModelSpec, MultiLabel, Run, Training
from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import DataError
from model_trainer.report.evaluation_file import EvaluationFile
from model_trainer.report.report import render_report, write_report
from model_trainer.report.run_files import read_run
from model_trainer.report.settings import changed_settings

MakeFolder = Callable[..., Path]
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """The elements, attributes and text of a page; fails unless its tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


def sections_of(page: Page) -> list[str | None]:
    return [each.get("id") for each in page.all("section")]


def rows_of(page: str, table_id: str) -> list[list[str]]:
    """The texts of the cells in each row of a table, without its header."""
    table = re.search(f'id="{table_id}".*?</table>', page, re.DOTALL)
    assert table
    rows = re.findall(r"<tr>.*?</tr>", table[0], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows[1:]]
    return [[re.sub("(?:<.*?>)+", "|", cell).strip("|\n") for cell in row] for row in cells]


def test_a_run_with_all_files_has_all_sections_and_links_to_them(make_folder: MakeFolder) -> None:
    folder = make_folder()
    write_json(
        folder / "report" / "data.json", {"train": {"images": 9, "counts": {"bag": 4, "coat": 5}}, "examples": []}
    )
    write_json(folder / "findings.json", [])
    page = page_of(folder)
    assert sections_of(page) == [
        "summary", "curves", "metrics", "classes", "confusion", "probabilities", "images", "slices", "data", "findings",
        "settings", "environment",
    ]  # fmt: skip
    assert [each["href"] for each in page.all("a")] == ["#main", *(f"#{name}" for name in sections_of(page))]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_multi_label_report_has_tag_curves_and_no_confusion_matrix(
    make_folder: MakeFolder, tags: dict[str, Any]
) -> None:
    page = page_of(make_folder(evaluation=tags))
    assert sections_of(page) == [
        "summary", "curves", "metrics", "classes", "tag-curves", "missed", "images", "settings", "environment"
    ]  # fmt: skip
    assert "bag + coat" in page.text
    assert "3.1" in page.text
    assert "Micro F1 at thresholds" in page.text
    points = [each["points"] or "" for each in page.all("polyline") if "tag" in (each["class"] or "")]
    assert [each.count(",") for each in points] == [3, 3, 3]


def test_headings_are_in_order_and_label_their_sections(make_folder: MakeFolder) -> None:
    page = page_of(make_folder())
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[:2] == [1, 2]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {each["aria-labelledby"] for each in page.all("section")} <= ids


def test_every_metric_has_its_value_and_interval_from_the_file(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    text = page_of(make_folder()).text
    for metric in evaluation["metrics"].values():
        for value in metric.values():
            assert value is None or f"{value:.3f}" in text
    assert "95 % interval 0.601 to 0.834" in text
    assert "chance 0.333, always “dress” 0.500" in text


def test_the_main_metric_comes_first_whatever_the_order_in_the_file(make_folder: MakeFolder) -> None:
    page = write_report(make_folder()).read_text()
    assert re.findall(r'<p class="name">(.*?)</p>', page) == ["Accuracy", "Balanced accuracy"]


def test_the_table_of_classes_has_the_numbers_of_the_file(make_folder: MakeFolder) -> None:
    rows = rows_of(write_report(make_folder()).read_text(), "class-table")
    assert rows == [
        ["bag", "10", "0.571|0.30 to 0.80", "0.800|0.49 to 0.94", "0.667", "coat (1)"],
        ["coat", "20", "0.789|0.60 to 0.90", "0.750|0.53 to 0.89", "0.769", "dress (3)"],
        ["dress", "30", "–", "0.667|0.49 to 0.81", "0.727", "coat (6)"],
    ]


def test_the_confusion_matrix_has_the_counts_of_the_file_and_percentages_of_the_rows(make_folder: MakeFolder) -> None:
    page = write_report(make_folder()).read_text()
    counts = [int(each) for each in re.findall(r'class="count">(\d+)<', page)]
    assert counts == [8, 1, 1, 2, 15, 3, 4, 6, 20]
    assert re.findall(r"<small>(.*?)</small>", page)[:3] == ["80 %", "10 %", "10 %"]
    assert 'title="6 images of dress were predicted as coat (20 %)"' in page


def test_without_a_matrix_the_largest_confusions_are_a_list(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    evaluation["confusion"]["matrix"] = None
    page = write_report(make_folder(evaluation=evaluation)).read_text()
    assert 'class="matrix' not in page
    assert "Largest confusions" in page
    assert rows_of(page, "class-table")[2][-1] == "coat (6)"


def test_only_the_worst_of_many_classes_are_shown(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    count = 2500
    f1 = np.random.default_rng(0).permutation(count) / count
    page = write_report(
        make_folder(
            classes=[f"class {number}" for number in range(count)],
            confusion=None,
            galleries=None,
            per_class={"images": [1] * count, "f1": {"value": f1.tolist()}},
        )
    ).read_text()
    shown = [row[0] for row in rows_of(page, "class-table")]
    assert shown == [f"class {index}" for index in np.sort(np.argsort(f1)[:2000])]
    assert "The 2,000 classes with the lowest F1 of 2,500" in page


def test_curves_have_the_values_of_the_history_with_gaps_for_undefined_ones(make_folder: MakeFolder) -> None:
    page = page_of(make_folder())
    charts = [json.loads(each["data-readout"] or "") for each in page.all("figure") if "data-readout" in each]
    assert charts[0]["at"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert charts[0]["lines"][0]["text"] == ["1.25", "0.75", "0.5"]
    assert charts[0]["lines"][1]["text"] == ["1.5", "–", "0.875"]
    assert charts[0]["lines"][1]["y"][1] is None
    assert charts[1]["lines"][1]["text"] == ["0.4375", "0.625", "0.5938"]
    assert charts[3]["at"] == [f"step {step}" for step in range(1, 9)]


def test_calibration_and_thresholds_have_the_numbers_of_the_file(make_folder: MakeFolder) -> None:
    text = page_of(make_folder()).text
    for number in ("1.310", "0.0812", "0.0213", "0.2134", "0.2031", "40.0 %", "0.958"):
        assert number in text


def test_pictures_are_embedded_with_labels_and_attribution_maps(make_folder: MakeFolder) -> None:
    page = page_of(make_folder())
    pictures = [each for each in page.all("img") if (each["src"] or "").startswith("data:image/jpeg;base64,/9j/")]
    assert [each["class"] for each in pictures] == ["map", "plain"] * 3 + ["plain"]
    assert {each.get("id") for each in page.all("input")} >= {"maps"}
    assert "bag → coat 0.88" in page.text
    assert "caption 3" in page.text


def test_only_pictures_of_the_evaluation_are_embedded(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    folder = make_folder()
    picture = folder / "evaluation" / "images" / "0.jpg"
    (folder / "secret.jpg").write_bytes(picture.read_bytes())
    (folder / "evaluation" / "images" / "secret.jpg").write_text("no picture")
    images = evaluation["galleries"][0]["images"]
    images[0] |= {"file": "../secret.jpg", "map": str(folder / "secret.jpg")}
    images[1] |= {"file": "images/secret.jpg", "map": "images/../../secret.jpg"}
    evaluation["galleries"] = evaluation["galleries"][:1]
    write_json(folder / "evaluation" / "evaluation.json", evaluation)
    assert page_of(folder).all("img") == []


def test_slices_come_in_the_order_of_the_file_with_their_intervals(make_folder: MakeFolder) -> None:
    page = write_report(make_folder()).read_text()
    section = page[page.index('id="slices"') :]
    assert re.findall(r'class="clamp">(.)</span>', section)[:2] == ["B", "A"]
    assert '0.625<span class="interval">0.47 to 0.76</span>' in section


def test_changed_settings_are_shown_next_to_their_defaults(make_folder: MakeFolder) -> None:
    page = write_report(make_folder()).read_text()
    section = page[page.index('id="settings"') : page.index('id="environment"')]
    names = re.findall(r"<code>(.*?)</code>", section)
    assert names == [
        "train_data", "val_data", "spec.class", "spec.name", "spec.preprocess_func", "spec.target_size",
        "training.epochs", "training.learning_rate", "name",
    ]  # fmt: skip
    assert re.search(r'learning_rate</code></th><td class="text">0.0005</td><td class="text soft">0.0001</td>', section)


def test_settings_that_name_code_are_shown_without_importing_it(make_folder: MakeFolder) -> None:
    run = Run(
        spec=ModelSpec.named("mobilenet_v2"), train_data=ImageFolder("data/train"), training=Training(epochs=9),
        callbacks=(Call("no_such_module.Callback", patience=3),),
    )  # fmt: skip
    folder = make_folder(run=run)
    text = page_of(folder).text
    assert "no_such_module.Callback" in text
    defaults = {setting.name: setting.default for setting in changed_settings(read_run(folder))}
    assert defaults["callbacks.0"] == "[]"
    assert defaults["training.epochs"] == "2"
    assert "training.epochs" in text
    assert "training.batch_size" not in text


def test_the_command_and_the_versions_are_shown(make_folder: MakeFolder) -> None:
    text = page_of(make_folder()).text
    assert "script/train --set training.epochs=3" in text
    assert "3.15.1" in text
    assert "1 GPU in mixed_bfloat16" in text
    assert "2:02 min, 41 s an epoch" in text


def test_notes_come_before_everything_else(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "final_model.hdf5").unlink()
    (folder / "bad_images.csv").write_text("image,reason\ndata/a.jpg,is truncated\n")
    (folder / "logs" / "train.log").write_text(
        "2026-11-26 17:33:54,937 WARNING data/a.jpg is truncated; it is skipped.\n"
        "2026-11-26 17:33:55,937 WARNING The disk is nearly full.\n2026-11-26 17:33:56,937 INFO Not this.\n"
    )
    page = write_report(folder).read_text()
    notes = re.findall(r"<li>([^<]*)</li>", page)
    assert notes[0] == "A note."
    assert "has not finished" in notes[1]
    assert "data/a.jpg (is truncated)" in notes[2]
    assert notes[3:] == ["The disk is nearly full."]


def test_an_accuracy_not_significantly_above_the_majority_class_is_pointed_out(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    evaluation["baselines"]["majority"] = 0.65
    assert "not distinguishable from that of always predicting" in page_of(make_folder(evaluation=evaluation)).text


def test_an_accuracy_below_that_of_the_majority_class_is_pointed_out(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    evaluation["baselines"]["majority"] = 0.99
    assert "worse than always predicting" in page_of(make_folder(evaluation=evaluation)).text


def test_findings_are_listed_with_their_cure(make_folder: MakeFolder) -> None:
    folder = make_folder()
    finding = {
        "id": "overfit", "level": "warning", "title": "Validation stopped improving", "why": "It is `overfitting`.",
        "cure": "Add augmentation.", "count": 3, "examples": [{"name": "epoch 2", "detail": "0.625"}],
    }  # fmt: skip
    write_json(folder / "findings.json", [finding])
    page = write_report(folder).read_text()
    assert '<span class="level warning">warning</span> Validation stopped improving' in page
    assert "It is <code>overfitting</code>." in page
    assert "Add augmentation." in page
    assert 'epoch 2 <span class="soft">0.625</span>' in page


def test_data_has_class_counts_and_augmented_examples(make_folder: MakeFolder) -> None:
    folder = make_folder()
    picture = (folder / "evaluation" / "images" / "0.jpg").read_bytes()
    examples = folder / "report" / "examples"
    examples.mkdir(parents=True)
    for name in ("0.jpg", "0-0.jpg", "0-1.jpg"):
        (examples / name).write_bytes(picture)
    example = {
        "name": "data/train/bag/0.jpg", "label": "bag", "original": "examples/0.jpg",
        "labels": ["bag", "bag 0.7, coat 0.3"],
        "augmented": ["examples/0-0.jpg", "examples/0-1.jpg", "examples/missing.jpg"],
    }  # fmt: skip
    counts = {"origin": "data/train", "images": 9, "counts": {"bag": 4, "coat": 5}}
    write_json(folder / "report" / "data.json", {"train": counts, "val": None, "examples": [example]})
    page = write_report(folder).read_text()
    section = page[page.index('id="data"') : page.index('id="settings"')]
    assert section.count("<img") == 3
    assert "bag 0.7, coat 0.3" in section
    assert re.findall(r'class="number">(\d)<', section) == ["4", "5"]


def test_the_report_of_a_k_fold_training_has_mean_and_spread_over_the_folds(make_folder: MakeFolder, run: Run) -> None:
    folder = make_folder()
    for name in ("training_options.json", "model_spec.json", "history.csv", "logs/metrics.jsonl", "final_model.hdf5"):
        (folder / name).unlink()
    metric = {"mean": 0.75, "standard_deviation": 0.0625, "out_of_fold": 0.7166, "folds": [0.625, None, 0.875]}
    folds = [{"fold": number, "folder": f"fold-{number}", "state": "finished"} for number in (1, 2, 3)]
    options = {
        "state": "finished",
        "folds": folds,
        "main_metric": "accuracy",
        "metrics": {"log_loss": metric, "accuracy": metric},
    }
    write_json(folder / "folds.json", options | {"run": run.to_dict()})
    page = write_report(folder).read_text()
    assert sections_of(Page(page))[:3] == ["summary", "folds", "metrics"]
    section = page[page.index('id="folds"') :]
    assert re.findall(r'<th scope="row">(.*?)</th>', section)[:2] == ["Accuracy", "Log loss"]
    assert re.findall(r'data-key="(.*?)"', section)[:6] == ["0.750", "0.062", "0.717", "0.625", "–", "0.875"]
    assert "<code>fold-3</code>." in section
    assert "folds.json has all of them" in page
    assert "has not finished" not in page


@pytest.mark.parametrize("missing", ["history.csv", "logs/metrics.jsonl", "training_options.json", "model_spec.json"])
def test_a_report_is_made_even_if_a_file_is_missing(make_folder: MakeFolder, missing: str) -> None:
    folder = make_folder()
    (folder / missing).unlink()
    assert "0.717" in page_of(folder).text


def test_without_an_evaluation_the_page_has_the_command_that_writes_it(make_folder: MakeFolder) -> None:
    folder = make_folder(evaluation=None)
    page = page_of(folder)
    assert f"model-trainer evaluate {folder} writes it" in page.text
    assert sections_of(page) == ["summary", "curves", "settings", "environment"]


def test_a_run_that_was_stopped_before_its_first_epoch_has_a_report(make_folder: MakeFolder) -> None:
    folder = make_folder(evaluation=None)
    for name in ("history.csv", "final_model.hdf5", "model_max_acc.hdf5", "logs/metrics.jsonl"):
        (folder / name).unlink()
    text = page_of(folder).text
    assert "history.csv has no complete epoch" in text
    assert "There is no model file in the folder yet." in text


def test_a_truncated_last_line_of_a_log_is_left_out(make_folder: MakeFolder) -> None:
    folder = make_folder()
    with (folder / "logs" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 9, "lo')
    assert len(read_run(folder).steps) == 8


DAMAGED = {
    "cut off": ("evaluation/evaluation.json", lambda text: text[: len(text) // 2]),
    "a list": ("evaluation/evaluation.json", lambda text: "[]"),
    "NaN": ("evaluation/evaluation.json", lambda text: text.replace("0.7166", "NaN", 1)),
    "text as a number": ("evaluation/evaluation.json", lambda text: text.replace("0.7166", '"high"', 1)),
    "another version": ("evaluation/evaluation.json", lambda text: text.replace('"version": 1', '"version": 2')),
    "a class too few": ("evaluation/evaluation.json", lambda text: text.replace('"bag", "coat", ', '"bag", ', 1)),
    "no matrix": ("evaluation/evaluation.json", lambda text: text.replace("[8, 1, 1]", "[8, 1]")),
    "no UTF-8": ("evaluation/evaluation.json", lambda text: text.replace("A note", "\udcff")),
    "options": ("training_options.json", lambda text: text[:50]),
    "options without a run": ("training_options.json", lambda text: "{}"),
    "spec": ("model_spec.json", lambda text: "3"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_gives_one_message_that_names_it(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[str], str]
) -> None:
    path = make_folder() / name
    path.write_bytes(damage(path.read_text()).encode("utf-8", "surrogateescape"))
    folder = path.parent if path.parent.name == "run" else path.parent.parent
    assert exit_code_of(lambda: app(["report", str(folder)])) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {path} is damaged: ")
    assert message.count("\n") == 1
    assert not (folder / "report").exists()


def test_a_folder_without_a_run_gives_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in (
        (tmp_path, "neither training_options.json"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "file", "is a file"),
    ):
        assert exit_code_of(lambda path=path: app(["report", str(path)])) == 2
        assert reason in capsys.readouterr().err


def test_the_command_writes_the_page_and_names_it(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder()
    assert exit_code_of(lambda: app(["report", str(folder)])) == 0
    assert capsys.readouterr().err == f"Report: {folder}/report/index.html\n"
    assert (folder / "report" / "index.html").is_file()


HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7 * 7 }}</style>"]


def test_hostile_names_from_all_files_are_escaped(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    text = json.dumps(evaluation)
    for name, hostile in zip(("bag", "coat", "dress"), HOSTILE, strict=True):
        text = text.replace(json.dumps(name), json.dumps(hostile))
    for name in ("data/val", "camera", "A note.", "caption 1", "Most confident mistakes", "model_max_acc.hdf5"):
        text = text.replace(name, json.dumps(HOSTILE[1])[1:-1])
    folder = make_folder("<b>run '\"&", evaluation=json.loads(text))
    (folder / "history.csv").write_text(HISTORY_WITH_A_HOSTILE_METRIC)
    (folder / "logs" / "train.log").write_text(f"2026-11-26 17:33:54,937 WARNING {HOSTILE[0]}\n")
    write_json(folder / "findings.json", [{"id": "x", "level": "note", "title": HOSTILE[0], "why": HOSTILE[1]}])
    write_json(folder / "report" / "data.json", {"train": {"images": 1, "counts": dict.fromkeys(HOSTILE, 1)}})
    page = page_of(folder)
    for name in HOSTILE:
        assert name in page.text
    assert len(page.all("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [each for each in page.all("img") if each["src"] == "x"]
    assert len(page.all("style")) == 1


HISTORY_WITH_A_HOSTILE_METRIC = f'epoch,"{HOSTILE[0]}"\n1,0.5\n2,0.75\n'


def test_the_page_allows_only_its_own_script_and_no_requests(make_folder: MakeFolder) -> None:
    page = write_report(make_folder()).read_text()
    policy = next(each["content"] for each in Page(page).all("meta") if "http-equiv" in each) or ""
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "connect-src" not in policy
    assert not re.search(r'(?:src|href)="(?!data:image/jpeg;base64,|#)|@import|url\(', page)


def test_the_last_pictures_are_omitted_if_the_page_would_be_too_large(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    folder = make_folder()
    picture = (folder / "evaluation" / "images" / "0.jpg").read_bytes()
    (folder / "evaluation" / "images" / "0.jpg").write_bytes(picture + bytes(60_000))
    image = evaluation["galleries"][0]["images"][0] | {"map": None}
    evaluation["galleries"][0]["images"] = [image] * 30
    evaluation["galleries"][1]["images"] = [image] * 70
    write_json(folder / "evaluation" / "evaluation.json", evaluation)
    path = write_report(folder)
    assert 3_900_000 < path.stat().st_size <= 4_500_000
    num_pictures = len(Page(path.read_text()).all("img"))
    assert 30 < num_pictures < 100
    assert f"{100 - num_pictures} more left out, to keep this page small" in path.read_text()


@pytest.mark.long
def test_the_largest_page_without_pictures_is_small_enough(make_folder: MakeFolder) -> None:
    count = 2000
    column = {"value": [0.5] * count, "low": [0.4] * count, "high": [0.6] * count}
    classes = [f"{'long name ' * 29}{number}" for number in range(count)]
    pair = {"true": classes[0], "predicted": classes[1], "images": 3, "fraction": 0.5}
    path = write_report(
        make_folder(
            classes=classes,
            confusion={"matrix": None, "largest": [pair] * 100},
            galleries=None,
            per_class={"images": [1] * count}
            | dict.fromkeys(("precision", "recall", "f1", "specificity", "auroc"), column),
        )
    )
    assert path.stat().st_size < 5_000_000


@pytest.mark.parametrize("task", [Classification(), MultiLabel()], ids=["classes", "tags"])
def test_evaluations_of_all_tasks_can_be_read(task: Classification | MultiLabel) -> None:
    random = np.random.default_rng(0)
    labels = (
        random.integers(0, 2, 20)
        if isinstance(task, Classification)
        else random.integers(0, 2, (20, 2)).astype(np.float32)
    )
    evaluation = task.evaluate(labels, random.dirichlet((1, 1), 20).astype(np.float32), ("cat", "dog"))
    content = {
        "version": 1,
        "data": {"origin": "data", "split": "validation", "images": 20},
        "main_metric": next(iter(evaluation.estimates())),
    }
    parsed = EvaluationFile.model_validate_json(json.dumps(content | evaluation.to_dict()))
    assert parsed.classes == ["cat", "dog"]
    assert parsed.metrics[parsed.main_metric].value == pytest.approx(next(iter(evaluation.estimates().values())).value)


@pytest.mark.long
def test_writing_a_report_does_not_import_tensorflow(make_folder: MakeFolder) -> None:
    folder = make_folder()
    program = (
        "import sys; from model_trainer.report.report import write_report; write_report(sys.argv[1]); "
        "assert not {'tensorflow', 'keras', 'sklearn', 'matplotlib'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)


def test_the_page_of_a_running_training_polls_for_newer_versions(make_folder: MakeFolder) -> None:
    page = render_report(read_run(make_folder()), version="abc")
    assert 'data-version="abc"' in page
    assert "connect-src 'self'" in page


def test_a_folder_without_a_run_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="output folder of a run"):
        write_report(tmp_path)
