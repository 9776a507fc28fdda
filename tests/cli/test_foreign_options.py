"""`--classes`: class names, or a text file with one name per line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_trainer.cli.foreign_options import read_classes
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError


def test_class_names_are_separated_by_commas() -> None:
    assert read_classes("cat, dog,small bird") == ["cat", "dog", "small bird"]
    assert read_classes(None) is None


@pytest.mark.parametrize("content", ["cat\ndog\n", "\ufeffcat\r\ndog\r\n\r\n"])
def test_a_file_has_one_class_name_per_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a,b.names"
    path.write_bytes(content.encode())
    assert read_classes(str(path)) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat,,dog", "a name is empty"),
        ("", "a name is empty"),
        ("cat,cat", "has the name 'cat' twice"),
        ("none.txt", "names the file none.txt, which cannot be read: No such file"),
        ("folder", "names the file folder, which cannot be read: Is a directory"),
        ("gap.txt", "line 2 of gap.txt is empty"),
        ("binary.txt", "it is not a text file"),
    ],
)
def test_invalid_class_names_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "gap.txt").write_text("cat\n\ndog\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=message):
        read_classes(names)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_predict_and_evaluate_have_both_options(command: str) -> None:
    output = CliRunner().invoke(app, [command, "--help"]).output
    assert "--spec" in output
    assert "--classes" in output
