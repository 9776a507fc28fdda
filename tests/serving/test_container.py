"""The entry point of the container, with a stand-in for `model-trainer`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "script" / "serve"


def arguments_of(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """The arguments with which the script calls `model-trainer`, which replaces the script's process (exec)."""
    program = folder / "model-trainer"
    program.write_text('#!/usr/bin/env bash\necho $$\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    plain = {name: value for name, value in os.environ.items() if name != "MODEL_TRAINER_TOKEN"}
    with subprocess.Popen(
        [str(SCRIPT), *arguments], env={**plain, "PATH": path, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=30)
    number, *received = output.splitlines()
    assert int(number) == process.pid  # so a signal to the container reaches `model-trainer`
    return received


def test_the_container_listens_on_all_addresses_without_a_token(tmp_path: Path) -> None:
    assert arguments_of(tmp_path) == ["serve", "--host", "0.0.0.0", "--no-token"]


def test_the_argument_serve_of_sagemaker_and_options_are_accepted(tmp_path: Path) -> None:
    received = arguments_of(tmp_path, "serve", "--workers", "2", "/opt/a model")
    assert received == ["serve", "--host", "0.0.0.0", "--no-token", "--workers", "2", "/opt/a model"]


def test_a_token_in_the_environment_requires_authentication(tmp_path: Path) -> None:
    assert arguments_of(tmp_path, MODEL_TRAINER_TOKEN="s3cret") == ["serve", "--host", "0.0.0.0"]


def test_the_container_runs_the_script_in_exec_form_as_an_ordinary_user() -> None:
    text = (ROOT / "container" / "Dockerfile").read_text()
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    assert json.loads(entry) == ["/opt/model-trainer/script/serve"]
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements", "pyproject.toml", "setup.py", "README.md", "LICENSE", "script/serve"])
def test_the_files_that_the_container_copies_exist(name: str) -> None:
    assert name in (ROOT / "container" / "Dockerfile").read_text()
    assert (ROOT / name).exists()
