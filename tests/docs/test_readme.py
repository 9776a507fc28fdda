"""The first screen of the README keeps what it promises."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from model_trainer import ImageFolder, Run, api, train
from model_trainer.cli.main import app
from model_trainer.report.after_training import report_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIRST_CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
FIRST_TABLE = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)[0].splitlines()[2:]


def test_the_first_screen_is_a_sentence_an_install_line_twelve_lines_of_python_and_a_table() -> None:
    sentence, install, table = re.match(
        r"# Model Trainer\n\n(.+)\n\n```console\n(.+)\n```\n```python\n(?:.*\n){12}```\n\n(\| what .+)", README
    ).groups()  # type: ignore[union-attr]
    assert sentence.count(". ") == 0
    assert install.startswith("$ git clone")
    assert "`model.fit` does not give you" in table


@pytest.mark.usefixtures("short_pipeline", "plain_graphs")
def test_the_twelve_lines_train_a_model_that_keras_loads(colors: Path, tmp_path: Path) -> None:
    code = FIRST_CODE
    for old, new in {
        '.named("mobilenet_v2", target_size=(96, 96, 3))': (
            '(class_="model_trainer.testing.small_backbone", target_size=(16, 16, 3))'
        ),
        "data/sample": str(colors),
        "batch_size=32": f'batch_size=4), weights=None, output_dir="{tmp_path}"',
        ", learning_rate=1e-3)": "",
    }.items():
        assert old in code
        code = code.replace(old, new)
    names: dict[str, Any] = {}
    exec(code, names)
    assert isinstance(names["model"], keras.Model)
    assert names["model"].output_shape == (None, 3)
    assert len(names["result"].history) == 5


@pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
def test_the_readme_shows_the_files_and_messages_of_a_real_run(
    make_run: Callable[..., Run],
    draw_folder: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "report_run", report_run)
    (tree,) = re.findall(r"```text\noutput/\S+/\n(.*?)```", README, re.DOTALL)
    shown = {word.strip("/") for word in re.findall(r"(?:[a-z_]+\.(?:hdf5|json|csv|png)|[a-z]+/)(?=\s)", tree)}
    folder = draw_folder(tmp_path / "train", 5)
    (folder / "red" / "empty.png").write_bytes(b"")
    result = train(make_run(name="sample", train_data=ImageFolder(folder), val_data=ImageFolder(folder)))
    # No step of this run was bad, and conftest.py leaves curves out.
    assert {path.name for path in result.path.iterdir()} == shown - {"bad_steps.csv", "curves.png"}

    (log,) = re.findall(r"```console\n\$ script/train --sample\n(.*?)```", README, re.DOTALL)
    lines = messages_in(log[log.index("Reading the data") :])
    assert len(lines) == 11
    assert lines <= messages_in("".join(capfd.readouterr()))


def messages_in(text: str) -> set[str]:
    """The lines, except rows of metrics, with numbers as # and without network name, precision and path."""
    lines = {" ".join(re.sub(r"\d+(?:[.,]\d+)*", "#", line).split()) for line in text.splitlines()}
    lines = {re.sub(r"^(Network: |Output: |Results: |Report: )[^ ,]+|(?<=CPU in )\w+", r"\1", line) for line in lines}
    return {line for line in lines if not re.match(r"epoch #|#|\.\.\.", line)}


@pytest.mark.parametrize("row", FIRST_TABLE)
def test_each_row_of_the_table_links_to_a_test_that_exists(row: str) -> None:
    links = re.findall(r"\[(\w+\.py)::(test_\w+)\]\((tests/[\w/]+\.py)\)", row.split(" | ")[1])
    assert links
    for file, test, path in links:
        assert Path(path).name == file
        assert f"\ndef {test}(" in (ROOT / path).read_text()


def test_the_first_sentence_is_the_description_of_the_project_everywhere() -> None:
    sentence = README.splitlines()[2].replace("`", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["description"] == app.info.help == sentence
    assert f"\nsite_description: {sentence}\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_table_of_commands_lists_all_commands() -> None:
    table = re.findall(r"^\| `model-trainer (\w+)", README, re.MULTILINE)
    assert sorted(table) == sorted(command.callback.__name__ for command in app.registered_commands)


def test_all_pages_name_the_same_output_folder() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = [name for page in pages for name in re.findall(r"output/[\w-]*-\d{8}-\d{6}", page.read_text())]
    assert set(named) == {"output/sample-20261126-044731", "output/sample-folds-20261126-044731"}
