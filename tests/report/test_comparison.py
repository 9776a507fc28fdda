"""The comparison of runs, made from files written by hand."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import stats

from model_trainer import ImageFolder, ModelSpec, Run, Training
from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import DataError
from model_trainer.report.comparison import write_comparison
from model_trainer.report.predicted_images import pair_runs
from model_trainer.report.run_files import read_run

MakeFolder = Callable[..., Path]


def text_of(path: Path) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", path.read_text())))


def test_the_difference_has_an_interval_and_the_p_value_of_the_exact_mcnemar_test(pair: tuple[Path, Path]) -> None:
    compared = pair_runs(*map(read_run, pair))
    assert compared is not None
    assert compared.correct.difference == pytest.approx(0.12)
    assert compared.correct.p_value == pytest.approx(stats.binomtest(4, 20).pvalue)
    assert 0.02 < compared.correct.low < 0.12 < compared.correct.high < 0.22
    assert compared.loss is not None
    assert compared.loss.difference == pytest.approx(-0.12)
    text = text_of(write_comparison(pair))
    assert "+12.0 percentage points of accuracy" in text
    assert "significantly better (McNemar, p = 0.012)" in text


def test_discordant_images_are_listed_with_both_predictions(pair: tuple[Path, Path]) -> None:
    path = write_comparison(pair)
    assert path == pair[0] / "report" / "comparison.html"
    text = text_of(path)
    assert "Now right: 16" in text
    assert "Now wrong: 4" in text
    assert "val/20.jpgbagcoatbag" in text.replace(" ", "")
    assert "val/96.jpgbagbagcoat" in text.replace(" ", "")
    assert "val/0.jpg" not in text


def test_images_are_joined_by_name_whatever_their_order(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "evaluation" / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text(
        "\n".join([header, *reversed(rows[:90]), rows[99].replace("bag", "dress", 1), "val/new.jpg,bag,bag,1,True,1,0"])
    )
    compared = pair_runs(*map(read_run, pair))
    assert compared is not None
    assert (compared.num_better, compared.num_worse, compared.correct.num_images) == (16, 0, 90)
    assert (compared.num_other_labels, compared.num_missing) == (1, 10)


def test_parquet_is_read_in_preference_to_csv(pair: tuple[Path, Path]) -> None:
    expected = pair_runs(*map(read_run, pair))
    for folder in pair:
        table = pa.csv.read_csv(folder / "evaluation" / "predictions.csv")
        pa.parquet.write_table(table, folder / "evaluation" / "predictions.parquet")
        (folder / "evaluation" / "predictions.csv").write_text("damaged")
    assert pair_runs(*map(read_run, pair)) == expected


def test_an_image_with_tags_is_right_if_all_its_tags_are(make_folder: MakeFolder, tags: dict[str, Any]) -> None:
    folders = [make_folder(name, evaluation=tags) for name in ("first", "second")]
    for folder, exact in zip(folders, (("True", "False"), ("True", "True")), strict=True):
        rows = [f"{image}.jpg,bag|coat,bag,{right},0.5" for image, right in zip("ab", exact, strict=True)]
        content = "\n".join(["image,true_labels,predicted_labels,exact_match,loss", *rows])
        (folder / "evaluation" / "predictions.csv").write_text(content)
    compared = pair_runs(*map(read_run, folders))
    assert compared is not None
    assert compared.correct.difference == 0.5
    assert [each.image for each in compared.better] == ["b.jpg"]
    assert "of images with all tags right" in text_of(write_comparison(folders))


def test_settings_that_differ_are_shown_with_a_column_for_each_run(make_folder: MakeFolder) -> None:
    runs = [
        Run(
            name=name,
            spec=ModelSpec.named("mobilenet_v2"),
            train_data=ImageFolder("data"),
            training=Training(learning_rate=rate),
        )
        for name, rate in (("a", 1e-3), ("b", 2e-3), ("c", 1e-3))
    ]
    folders = [make_folder(run.name, run=run) for run in runs]
    page = write_comparison(folders).read_text()
    settings = page[page.index('id="settings"') :]
    assert re.findall(r"<code>(.*?)</code></th>(.*?)</tr>", settings) == [
        ("training.learning_rate", "".join(f'<td class="text">{rate}</td>' for rate in (0.001, 0.002, 0.001)))
    ]


def test_metrics_are_side_by_side_and_the_best_is_bold(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    first = make_folder("first")
    evaluation["metrics"]["accuracy"] = {"value": 0.8, "low": 0.7, "high": 0.9}
    evaluation["metrics"]["log_loss"] = {"value": 0.9, "low": None, "high": None}
    page = write_comparison([first, make_folder("second", evaluation=evaluation)]).read_text()
    assert '<td class="number">0.717 (0.601 to 0.834)</td><td class="number"><b>0.800 (0.700 to 0.900)</b></td>' in page
    assert '<td class="number"><b>0.876 (0.765 to 0.988)</b></td><td class="number">0.900</td>' in page


def test_curves_of_all_runs_share_a_chart(make_folder: MakeFolder) -> None:
    folders = [make_folder(name) for name in ("first", "second")]
    (folders[1] / "history.csv").write_text("epoch,loss,accuracy\n1,1.5,0.25\n2,1.25,0.375\n")
    page = write_comparison(folders).read_text()
    charts = re.findall(r'<figure class="chart".*?</figure>', page, re.DOTALL)
    assert [re.findall(r"<figcaption>(\w+)", chart) for chart in charts] == [["Loss"], ["Accuracy"]]
    assert "first <b>0.5938</b>" in charts[1]
    assert "second, training <b>0.375</b>" in charts[1]
    assert len(re.findall(r'class="line stroke1 dashed"', charts[1])) == 1


def test_the_classes_that_differ_most_come_first(make_folder: MakeFolder, evaluation: dict[str, Any]) -> None:
    first = make_folder("first")
    evaluation["per_class"]["f1"]["value"] = [0.7, 0.3, None]
    page = write_comparison([first, make_folder("second", evaluation=evaluation)]).read_text()
    section = page[page.index('id="classes"') : page.index('id="curves"')]
    assert re.findall(r'class="clamp">(\w+)</span>', section) == ["coat", "bag"]
    assert "-0.469" in section


def test_runs_without_an_evaluation_are_compared_without_images(make_folder: MakeFolder) -> None:
    folders = [make_folder("first", evaluation=None), make_folder("second", evaluation=None)]
    text = text_of(write_comparison(folders))
    assert "cannot be compared image by image" in text
    assert "None of these runs has an evaluation" in text


def refused(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    assert exit_code_of(lambda: app(["report", *map(str, folders)])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_runs_of_different_tasks_are_refused(
    make_folder: MakeFolder, tags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused([make_folder("first"), make_folder("second", evaluation=tags)], capsys)
    assert "first is a Classification" in message
    assert "second a MultiLabel" in message


def test_runs_of_different_classes_are_refused(
    make_folder: MakeFolder, evaluation: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation["classes"][0] = "bags"
    message = refused([make_folder("first"), make_folder("second", evaluation=evaluation)], capsys)
    assert "'bag' is a class of" in message
    assert "Did you mean 'bags'?" in message


@pytest.mark.parametrize("content", ["", "image\n", "\x00", "image,true_label\na,b\n"])
def test_damaged_predictions_give_one_message(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (pair[1] / "evaluation" / "predictions.csv").write_text(content)
    assert f"{pair[1]}/evaluation/predictions.csv is damaged: " in refused([*pair], capsys)


def test_runs_in_folders_of_the_same_name_are_shown_by_their_paths(make_folder: MakeFolder) -> None:
    folders = [make_folder("a/run"), make_folder("b/run")]
    text = text_of(write_comparison(folders))
    assert all(str(folder) in text for folder in folders)


def test_a_comparison_needs_at_least_two_folders(make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match="at least two"):
        write_comparison([make_folder()])


def test_hostile_names_in_a_comparison_are_escaped(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "evaluation" / "predictions.csv"
    path.write_text(path.read_text().replace("coat", "<script>alert(1)</script>"))
    page = write_comparison(pair).read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script>") == 1


def test_per_class_metrics_that_are_counts_are_not_compared(
    make_folder: MakeFolder, evaluation: dict[str, Any]
) -> None:
    evaluation["per_class"]["f1"] = [1, 2, 3]
    folder = make_folder(evaluation=evaluation)
    page = write_comparison([folder, folder]).read_text()
    assert "Recall of the classes that differ most" in page
