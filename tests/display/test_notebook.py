"""Messages and progress in a notebook are one output, which is replaced. Kernels are tried in tests/notebooks/."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import pytest
from absl import logging
from rich.console import Console

from model_trainer.diagnosis.data import examine
from model_trainer.diagnosis.data.progress import ReadingProgress
from model_trainer.display.notebook import MOST_LINES, CellLog, cell_log, in_notebook, text_bar
from model_trainer.training.log import plain_messages
from model_trainer.training.progress import EpochProgress
from model_trainer.training.summary import print_summary
from model_trainer.training.train import Result


class Cell:
    """The outputs of a cell: the last text of each, and all that each has shown."""

    def __init__(self) -> None:
        self.states: list[list[str]] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.states.append([data["text/plain"]])
        states = self.states[-1]
        return SimpleNamespace(update=lambda data, raw: states.append(data["text/plain"]))

    @property
    def outputs(self) -> list[str]:
        return [states[-1] for states in self.states]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    cell = Cell()
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", cell.display)
    return cell


def test_a_plain_process_is_no_notebook() -> None:
    assert not in_notebook()
    with cell_log() as log:
        assert log is None


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace())
    assert not in_notebook()


def test_messages_and_progress_are_one_output(cell: Cell, capfd: pytest.CaptureFixture[str]) -> None:
    with plain_messages():
        logging.info("Reading the data ...")
        with EpochProgress(Console(stderr=True), "epoch 1/2", 20, "building the graph ...") as progress:
            for step in range(1, 20):
                progress.advance(32)
                progress.show(step, {"loss": 2.0 / step}, images_left=100)
        logging.info("epoch 1/2  loss 0.1")
    assert cell.outputs == ["Reading the data ...\nepoch 1/2  loss 0.1"]
    assert cell.states[0][1] == "Reading the data ...\nepoch 1/2  building the graph ..."
    assert "epoch 1/2  ██████████░░░░░░░░░░  10/20  loss 0.2000" in cell.states[0][11]
    assert capfd.readouterr() == ("", "")


def test_the_next_block_is_another_output(cell: Cell) -> None:
    for text in ("first", "second"):
        with plain_messages():
            logging.info("%s", text)
    assert cell.outputs == ["first", "second"]


def test_a_block_inside_of_another_writes_into_its_output(cell: Cell) -> None:
    with plain_messages():
        logging.info("outer")
        with plain_messages():
            logging.info("inner")
    assert cell.outputs == ["outer\ninner"]


def test_a_block_that_says_nothing_has_no_output(cell: Cell) -> None:
    with plain_messages(), EpochProgress(Console(quiet=True), "epoch 1/2", 20) as progress:
        progress.show(1, {"loss": 1.0})
    assert cell.outputs == []


def test_after_an_error_the_next_block_is_another_output(cell: Cell) -> None:
    def interrupted() -> None:
        with plain_messages():
            logging.info("first")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with plain_messages():
        logging.info("second")
    assert cell.outputs == ["first", "second"]


def test_of_very_many_lines_the_last_are_shown(cell: Cell) -> None:
    log = CellLog()
    for number in range(MOST_LINES + 5):
        log.write(f"line {number}")
    lines = cell.outputs[0].splitlines()
    assert lines[0] == "(5 earlier lines)"
    assert lines[1:] == [f"line {number}" for number in range(5, MOST_LINES + 5)]


def test_the_reading_of_the_doctor_is_a_line_that_changes(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 11.0, 30.0))
    monkeypatch.setattr("model_trainer.diagnosis.data.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ReadingProgress(Console(stderr=True), "Reading") as progress:
        progress.update(0, 2000)
        progress.update(1000, 2000)
        progress.update(2000, 2000)
    assert cell.states[0][1] == "Reading  ██████████░░░░░░░░░░  1,000/2,000  100 images/s  10 s left"
    assert cell.outputs == ["Reading  ████████████████████  2,000/2,000  69 images/s  0 s left"]


def test_the_reading_of_a_moment_shows_nothing(cell: Cell, colours: Path) -> None:
    examine(colours)
    assert cell.outputs == []


def test_examining_shows_a_line(cell: Cell, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_trainer.diagnosis.data.progress.SECONDS_BETWEEN_UPDATES", 0.0)
    examine(colours)
    (output,) = cell.outputs
    assert output.startswith("Reading  ████████████████████  24/24")


def test_the_summary_leaves_the_table_to_the_result(cell: Cell, tmp_path: Path) -> None:
    output = io.StringIO()
    result = Result(tmp_path, [{"epoch": 1.0, "loss": 0.5}], {}, stopped="SIGINT")
    print_summary(result, Console(file=output, width=200))
    assert output.getvalue().splitlines() == [
        "Stopped early by SIGINT after 1 whole epoch; train(run, resume=True) goes on.",
        f"Results: {tmp_path}",
    ]


def test_the_summary_does_not_repeat_what_the_log_said_of_unreadable_images(tmp_path: Path) -> None:
    output = io.StringIO()
    print_summary(Result(tmp_path, [], {"a.jpg": "is empty"}), Console(file=output, width=200))
    assert output.getvalue() == f"Results: {tmp_path}\n"


def test_a_bar_is_full_at_the_end() -> None:
    assert (text_bar(0, 4), text_bar(2, 4), text_bar(4, 4)) == ("░" * 20, "█" * 10 + "░" * 10, "█" * 20)
    assert text_bar(0, 0) == "░" * 20
