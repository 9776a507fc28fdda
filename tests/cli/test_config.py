"""`model-trainer config`, and the options of object stores that all commands with paths have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError
from model_trainer.storage import configuration


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODEL_TRAINER_STORAGE_OPTIONS", "")  # monkeypatch then undoes what the command sets
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    configuration.current.cache_clear()
    yield
    configuration.current.cache_clear()


def shown(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["config", "--json", *options])
    assert result.exit_code == 0, result.output
    return {name: (row["value"], row["source"]) for name, row in json.loads(result.stdout).items()}


def test_every_value_has_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('[cache]\nsize = "5 GB"\n')
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", "mine.toml")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    rows = shown("--endpoint-url", "http://localhost:9000/")
    assert rows["s3.region"] == ("eu-west-1", "AWS_DEFAULT_REGION")
    assert rows["s3.endpoint"] == ("http://localhost:9000", "--endpoint-url")
    assert rows["cache.size"] == (5_000_000_000, "mine.toml line 2")
    assert rows["s3.profile"] == ("", "default")
    assert {*rows} >= {setting.name for setting in configuration.SETTINGS}


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAMADEUPFORTESTS00",
        "AWS_SECRET_ACCESS_KEY": "made/up+secret-of-forty-characters-00000",
        "AWS_SESSION_TOKEN": "made-up-session-token",
        "MODEL_TRAINER_TOKEN": "made-up-token",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    rows = shown()
    output = CliRunner().invoke(app, ["config"]).output + json.dumps(rows)
    assert not [value for value in secrets.values() if value in output]
    assert rows["AWS_ACCESS_KEY_ID"] == ("****TS00", "AWS_ACCESS_KEY_ID")
    assert rows["AWS_SECRET_ACCESS_KEY"] == ("****", "AWS_SECRET_ACCESS_KEY")
    assert rows["credentials"] == ("****TS00", "found by boto3: env")


def test_the_settings_of_a_profile_are_shown_as_in_use(tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    (tmp_path / "config").write_text(
        "[profile lab]\nregion = eu-north-1\nendpoint_url = http://lab:9000\n"
        "aws_access_key_id = AKIAMADEUPFORTESTS00\naws_secret_access_key = x\n"
    )
    rows = shown("--profile", "lab")
    assert rows["s3.profile"] == ("lab", "--profile")
    assert rows["endpoint in use"][0] == "http://lab:9000"
    assert rows["region in use"][0] == "eu-north-1"
    assert rows["credentials"] == ("****TS00", "found by boto3: config-file")


def key_in_use(*options: str) -> Any:
    return shown(*options)["credentials"][0]


def test_keys_in_the_environment_override_a_profile_of_the_file_but_not_the_profile_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    for name in ("filed", "asked"):
        with (tmp_path / "credentials").open("a") as file:
            file.write(f"[{name}]\naws_access_key_id = AKIAMADEUPFOR0{name}\naws_secret_access_key = x\n")
    (tmp_path / "mine.toml").write_text('[s3]\nprofile = "filed"\n')
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", "mine.toml")
    assert key_in_use() == "****iled"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUPFORTESTS00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    configuration.current.cache_clear()
    assert key_in_use() == "****TS00"
    assert key_in_use("--profile", "asked") == "****sked"


def test_the_table_has_a_line_for_each_value() -> None:
    lines = CliRunner().invoke(app, ["config", "--region", "eu-west-3"]).stdout.splitlines()
    assert lines[0].split() == ["Setting", "Value", "From"]
    assert ["s3.region", "eu-west-3", "--region"] in [line.split() for line in lines]


def test_an_invalid_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: app(["runs", "--endpoint-url", "minio"])) == 2
    assert "`--endpoint-url` should be a URL of a server" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "doctor", "preview", "evaluate", "predict", "serve", "report", "runs"])
def test_commands_with_paths_have_the_store_options_and_recognise_a_mistyped_url(command: str) -> None:
    assert "--endpoint-url" in CliRunner().invoke(app, [command, "--help"], terminal_width=200).output
    arguments = {"predict": ["model.hdf5", "s3:/photos/1.jpg"]}.get(command, ["s3:/photos/1.jpg"])
    result = CliRunner().invoke(app, [command, *arguments])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "s3:/photos/1.jpg looks like a URL. Did you mean s3://photos/1.jpg?"


def test_an_option_is_passed_to_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(app, ["config", "--region", "eu-west-3"])
    code = "from model_trainer.storage import configuration; print(configuration.current().region)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "eu-west-3"


def test_config_works_without_the_s3_extra() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('boto3', 'botocore', 'obstore'))\n"
        "from model_trainer.cli.main import app; app(['config'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "s3:// paths need boto3" in " ".join(done.stdout.split())
