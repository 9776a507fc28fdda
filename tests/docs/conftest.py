"""README.md and the pages of docs/, and the code blocks in them.

A test with an argument `python_block` runs for each block of Python, one with `console_block` for each console session,
and so on; one with `block` for each block of any language, and one with `page` for each page.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest

import model_trainer
from model_trainer import ImageFolder
from model_trainer.evaluation.folds import FoldsResult
from model_trainer.model_files.load import TrainedModel
from model_trainer.serving.predictor import Predictions
from model_trainer.sources.examples import Examples
from model_trainer.tasks.evaluation import Evaluation
from model_trainer.training.train import Result

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)

# These read data, train, or open a model. In the session of a page they are mocks that check arguments against the
# signature and return mocks with only the attributes of the return type.
STAND_INS: dict[Any, dict[str, Any]] = {
    model_trainer: {
        "evaluate": Evaluation,
        "load_image": np.ndarray,
        "load_model": TrainedModel,
        "predict": Predictions,
        "preview": None,
        "train": Result,
        "train_folds": FoldsResult,
        "write_recordio": None,
    },
    keras.models: {"load_model": keras.Model},
    ImageFolder: {"read": Examples},
}


def stand_in_for(function: Any, return_type: type | None) -> Any:
    if return_type is None:
        return mock.create_autospec(function)
    value = mock.create_autospec(return_type, instance=True)
    for each in dataclasses.fields(return_type) if dataclasses.is_dataclass(return_type) else ():
        if each.name not in dir(return_type):  # a field without a default is not an attribute of its class
            setattr(value, each.name, mock.MagicMock())
    return mock.create_autospec(function, return_value=value)


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is where its text begins, counted from 1."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    content = page.read_text()
    return [
        Block(
            page,
            content.count("\n", 0, block.start("text")) + 1,
            block["language"],
            textwrap.dedent(block["text"]),
        )
        for block in FENCED.finditer(content)
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in metafunc.fixturenames:
        language = name.removesuffix("_block")
        if name == "page":
            metafunc.parametrize(name, PAGES, ids=lambda page: str(page.relative_to(ROOT)))
        elif name == "block" or name != language:
            blocks = [
                each for page in PAGES for each in read_blocks(page) if name == "block" or each.language == language
            ]
            metafunc.parametrize(name, blocks, ids=str)


class PageSession:
    """Runs the Python blocks of a page one after another in one namespace, as a reader would."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._folder = folder
        self._blocks = [block for block in read_blocks(page) if block.language == "python"]
        self._done: list[Block] = []
        self._module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
        sys.modules[self._module.__name__] = self._module  # dataclasses resolve annotations there
        self.names: dict[str, Any] = vars(self._module)

    def run_to(self, last: Block | None = None) -> dict[str, Any]:
        """Runs the runnable blocks up to and including `last`, or all of them; returns the names defined so far."""
        for block in self._blocks:
            if block not in self._done:
                self._done.append(block)
                if is_runnable(block):
                    self._run(block)
            if block == last:
                break
        return self.names

    def _run(self, block: Block) -> None:
        # A real file, so that AutoGraph finds the source; leading blank lines, so that errors name the page's line.
        file = self._folder / f"{block.page.stem}_{block.line}.py"
        file.write_text("\n" * (block.line - 1) + block.text)
        with ExitStack() as stack:
            for owner, functions in STAND_INS.items():
                for name, return_type in functions.items():
                    stand_in = stand_in_for(getattr(owner, name), return_type)
                    stack.enter_context(mock.patch.object(owner, name, stand_in))
            exec(compile(file.read_text(), str(file), "exec"), self.names)


def is_runnable(block: Block) -> bool:
    """False for a block that trains with Keras' own `fit` or imports a package that may not be installed."""
    return not re.search(
        r"\.fit\(|(?:from|import) (?:keras_trainer|keras_model_specs|ray|requests|sagemaker)\b", block.text
    )


@pytest.fixture(scope="session")
def session_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], PageSession]]:
    """Returns the session of a page; all tests of a page share it."""
    sessions: dict[Path, PageSession] = {}

    def session(page: Path) -> PageSession:
        if page not in sessions:
            sessions[page] = PageSession(page, tmp_path_factory.mktemp("page"))
        return sessions[page]

    yield session
    for page in sessions:
        sys.modules.pop(f"page_{page.stem.replace('-', '_')}", None)
