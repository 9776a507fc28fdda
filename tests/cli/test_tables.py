"""What the tables of the command line show on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from model_trainer.cli.tables import print_evaluation, print_predictions, print_runs, print_specs
from model_trainer.report.runs import RunSummary
from model_trainer.specs import TABLE
from model_trainer.tasks.evaluation import Evaluation


def terminal(width: int = 80) -> Console:
    return Console(force_terminal=True, width=width, color_system=None, file=io.StringIO())


def printed_on(console: Console) -> list[str]:
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def answer(image: str, *labels: str) -> dict[str, object]:
    return {"image": image, "predictions": [{"label": label, "probability": 0.25} for label in labels]}


def test_a_narrow_terminal_shows_name_size_and_preprocessing_of_each_spec_untruncated() -> None:
    console = terminal()
    print_specs(console)
    header, *rows = printed_on(console)
    assert header.split() == ["name", "size", "preprocess_func"]
    assert [row.split()[0] for row in rows] == list(TABLE)
    assert "densenet_121         224 x 224 x 3  mean_std_normalization" in rows


def test_a_wide_terminal_shows_the_class_of_each_spec_too() -> None:
    console = terminal(160)
    print_specs(console)
    assert any(line.endswith(" keras.applications.vgg19.VGG19") for line in printed_on(console))


def test_a_narrow_terminal_shows_untruncated_paths_with_all_labels_below() -> None:
    paths = [f"/data/{'photos-of-the-garden/' * 4}{name}.jpg" for name in ("one", "two")]
    console = terminal()
    print_predictions([answer(path, *(f"a label {n}" for n in range(5))) for path in paths], console, terminal())
    lines = printed_on(console)
    labels = ["  a label 0 0.250  a label 1 0.250  a label 2 0.250  a label 3 0.250", "  a label 4 0.250"]
    assert lines == [paths[0], *labels, paths[1], *labels]


def test_predictions_that_fit_the_terminal_are_one_line_each() -> None:
    console = terminal()
    print_predictions([answer("a[b].jpg", "cat", "dog"), answer("[red].jpg", "cat", "dog")], console, terminal())
    assert printed_on(console) == [
        "image      predictions",
        "a[b].jpg   cat 0.250  dog 0.250",
        "[red].jpg  cat 0.250  dog 0.250",
    ]


def test_a_pipe_has_one_line_for_each_image_however_long() -> None:
    console = Console(width=80, file=io.StringIO())
    print_predictions([answer("a" * 200, "cat")], console, terminal())
    assert printed_on(console)[1] == f"{'a' * 200}  cat 0.250"


def test_an_unreadable_image_is_reported_on_the_error_console() -> None:
    errors = terminal()
    print_predictions([{"image": "data/nope.jpg", "error": "does not exist"}], terminal(), errors)
    assert printed_on(errors) == ["data/nope.jpg does not exist"]


class OneClass(Evaluation):
    def metrics(self) -> dict[str, str]:
        return {"accuracy": "0.5"}

    def table(self) -> tuple[list[str], list[list[str]]]:
        columns = ["class", "images", "precision", "recall", "f1", "most often confused with"]
        return columns, [["a-long-name-of-a-class" * 3, "12", "0.123", "0.456", "0.789", "another-name" * 3]]


def test_a_narrow_terminal_truncates_neither_the_numbers_nor_the_names_of_an_evaluation() -> None:
    console = terminal()
    print_evaluation(OneClass(), console)
    lines = printed_on(console)
    assert all(number in lines[2] or number in lines[3] for number in ("12", "0.123", "0.456", "0.789")), lines
    assert all(len(line) <= 80 for line in lines)


def summary(name: str, epochs: int, **values: Any) -> RunSummary:
    started = datetime(2026, 11, 26, 12, 0)
    best = {"metric": "val_accuracy", "value": 0.75, "source": "history", "best_epoch": 2}
    settings = {"weights": "auto" if epochs == 3 else None}
    return RunSummary(name, Path(name), started, 2, epochs, "stopped", settings=settings, **{**best, **values})


RUNS = [summary("pets-20261126-120000", 3), summary("pets-20261126-110000", 5, metrics={"val_loss": 0.25})]


def test_a_wide_terminal_shows_runs_with_start_settings_and_the_metric_to_sort_by() -> None:
    console = terminal(120)
    print_runs(RUNS, ["weights"], "val_loss", console)
    assert printed_on(console) == [
        "run                   started           epochs  state    best                           weights  val_loss",
        "pets-20261126-120000  2026-11-26 12:00  2/3     stopped  val_accuracy 0.7500 (epoch 2)  auto",
        "pets-20261126-110000  2026-11-26 12:00  2/5     stopped  val_accuracy 0.7500 (epoch 2)  null     0.2500",
    ]


def test_a_narrow_terminal_shows_runs_without_their_start() -> None:
    console = terminal()
    print_runs(RUNS, [], "run", console)
    assert printed_on(console)[1] == "pets-20261126-120000  2/3     stopped  val_accuracy 0.7500 (epoch 2)"


def test_a_terminal_too_narrow_for_a_table_of_runs_shows_the_settings_below_each_run() -> None:
    console = terminal()
    runs = [summary("pets-20261126-120000", 3, problem="history.csv cannot be read (ValueError)")]
    print_runs(runs, ["weights"], "run", console)
    assert printed_on(console) == [
        "pets-20261126-120000",
        "  2/3 epochs  stopped  val_accuracy 0.7500 (epoch 2)  weights auto",
        "  problem history.csv cannot be read (ValueError)",
    ]


def test_a_pipe_has_one_line_for_each_run() -> None:
    console = Console(width=80, file=io.StringIO())
    print_runs(RUNS * 2, ["weights"], "run", console)
    assert len(printed_on(console)) == 5
