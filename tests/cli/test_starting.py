"""What happens before TensorFlow starts, and the notation of the help pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_trainer import ImageFolder, ModelSpec, Run
from model_trainer.cli import evaluate, predict, preview
from model_trainer.cli.main import app
from model_trainer.cli.starting import announce_tensorflow, check_weights
from model_trainer.errors import ConfigError

RUN = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"))
RUN_FILE = "from model_trainer import *\nrun = Run(spec=ModelSpec.named('vgg19'), train_data=ImageFolder('data'))\n"


def test_a_terminal_shows_that_tensorflow_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce_tensorflow()
    assert capsys.readouterr().err == ""  # in a pipe
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    announce_tensorflow()
    assert capsys.readouterr() == ("", "Starting TensorFlow ...\n")


@pytest.mark.parametrize(
    ("module", "arguments"), [(evaluate, ["evaluate", "."]), (predict, ["predict", ".", "."]), (preview, ["preview"])]
)
def test_each_command_that_starts_tensorflow_says_so(
    module: object, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnnouncedError(Exception):
        pass

    def announce() -> None:
        raise AnnouncedError

    (tmp_path / "run.py").write_text(RUN_FILE)
    monkeypatch.setattr(module, "announce_tensorflow", announce)
    more = [str(tmp_path / "run.py")] if module is preview else []
    assert isinstance(CliRunner().invoke(app, [*arguments, *more]).exception, AnnouncedError)


def test_missing_weights_are_refused_before_tensorflow_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.hdf5").touch()
    for weights in (None, "auto", "imagenet", str(tmp_path / "weights.hdf5"), "s3://bucket/weights.hdf5"):
        check_weights(RUN.changed("weights", weights))
    with pytest.raises(ConfigError, match=r"`weights` should be .* there is no file none.hdf5."):
        check_weights(RUN.changed("weights", "none.hdf5"))
    (tmp_path / "run.py").write_text(RUN_FILE)
    result = CliRunner().invoke(app, ["train", str(tmp_path / "run.py"), "--set", "weights=none.hdf5"])
    assert isinstance(result.exception, ConfigError)
    assert "Starting TensorFlow" not in result.output


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "[OPTIONS] RUN"),
        ("predict", "[OPTIONS] MODEL IMAGES..."),
        ("specs", "[OPTIONS] [NAME]"),
        ("gpu", "[OPTIONS]"),
    ],
)
def test_help_names_arguments_in_capitals_and_gives_flags_no_type(command: str, usage: str) -> None:
    output = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, [command, "--help"]).output)
    assert re.search(rf"{command} {re.escape(usage)} *$", output, re.MULTILINE), output
    assert "<bool>" not in output
