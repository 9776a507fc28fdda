"""Public names carry an example, and every example in a docstring of the package runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import model_trainer
from model_trainer.errors import ModelTrainerError

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NEEDS_NO_EXAMPLE = {"__version__", "KERAS_TRAINER"}


PACKAGE = Path(model_trainer.__file__).parent


def modules_with_examples() -> list[str]:
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]


def names() -> list[str]:
    return [name for name in model_trainer.__all__ if name not in NEEDS_NO_EXAMPLE]


def examples_of(module: str) -> list[doctest.DocTest]:
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module)
    return [test for test in tests if test.examples]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of an example: `data/train/{cat,dog}`, `data/val/{cat,dog}`, tables of them, `photo.jpg`."""
    random = np.random.default_rng(0)
    rows, tags = ["filename,label,split"], ["filename,tags"]
    for split, count in [("train", 8), ("val", 4)]:
        for name in ["cat", "dog"]:
            class_folder = tmp_path / "data" / split / name
            class_folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(class_folder / f"{number}.jpg")
                rows.append(f"{split}/{name}/{number}.jpg,{name},{split}")
                tags.append(f"{split}/{name}/{number}.jpg,{name}|pet")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "tags.csv").write_text("\n".join(tags) + "\n")
    Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_a_public_name_has_an_example(name: str) -> None:
    value = getattr(model_trainer, name)
    if inspect.isclass(value) and issubclass(value, ModelTrainerError):
        pytest.skip("an error is caught, and its docstring says when it is raised")
    assert ">>> " in (inspect.getdoc(value) or "")


@pytest.mark.long
@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_of_a_module_run(module: str, folder: Path) -> None:
    public = {name: getattr(model_trainer, name) for name in model_trainer.__all__}
    results: dict[str, Any] = {}  # of examples further up in the module, such as the `result` of `train`
    for example in sorted(examples_of(module), key=lambda example: example.lineno or 0):
        example.globs = {**public, **example.globs, **results, "np": np, "keras": keras}
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        outcome = runner.run(example, out=report.append, clear_globs=False)
        assert not outcome.failed, "".join(report)
        results |= {name: example.globs[name] for name in ("result",) if name in example.globs}
