"""Messages and progress in a notebook are one output that is updated; tests/notebooks/ tests it in real kernels."""

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
from model_trainer.display.notebook import MAX_LINES, CellLog, cell_log, in_notebook, text_bar
from model_trainer.training.log import plain_messages
from model_trainer.training.progress import EpochProgress
from model_trainer.training.summary import print_summary
from model_trainer.training.train import Result


class Cell:
    """The outputs of a cell; each has a list of the texts that it has shown, the current one last."""

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


def test_a_plain_process_is_not_a_notebook() -> None:
    assert not in_notebook()
    with cell_log() as log:
        assert log is None


def test_ipython_on_a_terminal_is_not_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace())
    assert not in_notebook()


def test_messages_and_progress_are_one_output(cell: Cell, capfd: pytest.CaptureFixture[str]) -> None:
    with plain_messages():
        logging.info("Reading the data ...")
        with EpochProgress(Console(stderr=True), "epoch 1/2", 20, "tracing the graph ...") as progress:
            for step in range(1, 20):
                progress.advance(32)
                progress.show(step, {"loss": 2.0 / step}, images_left=100)
        logging.info("epoch 1/2  loss 0.1")
    assert cell.outputs == ["Reading the data ...\nepoch 1/2  loss 0.1"]
    assert cell.states[0][1] == "Reading the data ...\nepoch 1/2  tracing the graph ..."
    assert "epoch 1/2  ██████████░░░░░░░░░░  10/20  loss 0.2000" in cell.states[0][11]
    assert capfd.readouterr() == ("", "")


def test_the_next_block_is_another_output(cell: Cell) -> None:
    for text in ("first", "second"):
        with plain_messages():
            logging.info("%s", text)
    assert cell.outputs == ["first", "second"]


def test_a_nested_block_writes_into_the_output_of_the_outer_one(cell: Cell) -> None:
    with plain_messages():
        logging.info("outer")
        with plain_messages():
            logging.info("inner")
    assert cell.outputs == ["outer\ninner"]


def test_a_block_without_messages_has_no_output(cell: Cell) -> None:
    with plain_messages(), EpochProgress(Console(quiet=True), "epoch 1/2", 20) as progress:
        progress.show(1, {"loss": 1.0})
    assert cell.outputs == []


def test_after_an_exception_the_next_block_is_another_output(cell: Cell) -> None:
    def interrupted() -> None:
        with plain_messages():
            logging.info("first")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with plain_messages():
        logging.info("second")
    assert cell.outputs == ["first", "second"]


def test_escape_sequences_in_a_message_are_shown_as_text(cell: Cell) -> None:
    with cell_log() as log:
        log.write("photos/\x1b[31mred\u202e.png\nis damaged\n")
    assert cell.outputs == ["photos/\\x1b[31mred\\u202e.png\nis damaged"]


def test_only_the_last_of_many_lines_are_shown(cell: Cell) -> None:
    log = CellLog()
    for number in range(MAX_LINES + 5):
        log.write(f"line {number}")
    lines = cell.outputs[0].splitlines()
    assert lines[0] == "(5 earlier lines)"
    assert lines[1:] == [f"line {number}" for number in range(5, MAX_LINES + 5)]


def test_the_doctors_progress_is_a_line_that_changes(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 11.0, 30.0))
    monkeypatch.setattr("model_trainer.diagnosis.data.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ReadingProgress(Console(stderr=True), "Reading") as progress:
        progress.update(0, 2000)
        progress.update(1000, 2000)
        progress.update(2000, 2000)
    assert cell.states[0][1] == "Reading  ██████████░░░░░░░░░░  1,000/2,000  100 images/s  10 s left"
    assert cell.outputs == ["Reading  ████████████████████  2,000/2,000  69 images/s  0 s left"]


def test_a_quick_examination_shows_no_progress(cell: Cell, colors: Path) -> None:
    examine(colors)
    assert cell.outputs == []


def test_a_long_examination_shows_progress(cell: Cell, colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_trainer.diagnosis.data.progress.SECONDS_BETWEEN_UPDATES", 0.0)
    examine(colors)
    (output,) = cell.outputs
    assert output.startswith("Reading  ████████████████████  24/24")


def test_the_summary_omits_the_table_that_the_result_shows(cell: Cell, tmp_path: Path) -> None:
    output = io.StringIO()
    result = Result(tmp_path, [{"epoch": 1.0, "loss": 0.5}], {}, stopped="SIGINT")
    print_summary(result, Console(file=output, width=200))
    assert output.getvalue().splitlines() == [
        "Stopped early by SIGINT after 1 complete epoch; train(run, resume=True) continues.",
        f"Results: {tmp_path}",
    ]


def test_the_summary_does_not_list_unreadable_images_again(tmp_path: Path) -> None:
    output = io.StringIO()
    print_summary(Result(tmp_path, [], {"a.jpg": "is empty"}), Console(file=output, width=200))
    assert output.getvalue() == f"Results: {tmp_path}\n"


def test_a_progress_bar_is_full_at_the_end() -> None:
    assert (text_bar(0, 4), text_bar(2, 4), text_bar(4, 4)) == ("░" * 20, "█" * 10 + "░" * 10, "█" * 20)
    assert text_bar(0, 0) == "░" * 20
