"""The scripts from outside: a copy of the checkout, with a stand-in for Python that records its calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pre_commit.clientlib import load_config

ROOT = Path(__file__).parents[1]
SCRIPTS = ["script/train", "script/serve", "script/test", "script/lock", "script/setup.sh", ".ci/run"]
TOOLS = ["bash", "cat", "cksum", "dirname", "env", "flock", "mkdir", "rm"]

# Answers as Python $VERSION does; `-m venv DIR` makes another of its kind. FAIL=WORD: a call with WORD in it fails.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
    *_base_executable*) echo "$VERSION $0" ;;
    *"import sys"*) echo "${VERSION%-venv}" ;;
    "-m venv"*) mkdir -p "$4/bin" && cat "$0" >"$4/bin/python" && chmod +x "$4/bin/python" && rm -f "$4"/*.stamp ;;
esac
case "$*" in *"import sys"*) exit ;; esac
echo $(printf '%q ' "$@") >>"$CALLS"
if [ -n "$FAIL" ] && [[ "$*" == *"$FAIL"* ]]; then echo "ERROR: no network" >&2 && exit "${FAIL_WITH:-1}"; fi
exit 0
"""


class Checkout:
    """A copy of the scripts and the pins, with a PATH that holds nothing but a few tools and the stand-in."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path, self.calls = folder, path, path / "calls"
        self.environment = {"PATH": str(path), "CALLS": str(self.calls), "VERSION": "3.12", "FAIL": ""}

    def run(self, *command: str, cwd: str = "/", **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the script `command[0]` of the checkout; `self.new_calls` are then the calls of Python it made."""
        self.calls.write_text("")
        return subprocess.run(
            [str(self.folder / command[0]), *command[1:]],
            cwd=cwd,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def new_calls(self) -> list[str]:
        return self.calls.read_text().splitlines()

    @property
    def installs(self) -> list[str]:
        return [call for call in self.new_calls if " install " in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a checkout"
    for name in ["script", "requirements"]:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = tmp_path / "bin"
    path.mkdir()
    for tool in [*TOOLS, "chmod"]:
        if executable := shutil.which(tool):
            (path / tool).symlink_to(executable)
    (path / "python3.12").write_text(PYTHON)
    (path / "python3.12").chmod(0o755)
    return Checkout(folder, path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_can_parse_a_script(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.endswith(".sh")])
def test_script_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_first_start_installs_the_pins_and_the_checkout_and_then_trains(checkout: Checkout) -> None:
    done = checkout.run("script/train", "--sample")

    assert done.returncode == 0, done.stderr
    assert checkout.new_calls[0].startswith("-m venv --clear")
    assert "-r requirements/base.txt" in checkout.installs[0]
    assert checkout.installs[1].endswith("--editable .")
    assert checkout.new_calls[-1] == "script/TrainModel.py --sample"


def test_second_start_installs_nothing_and_prints_nothing(checkout: Checkout) -> None:
    checkout.run("script/train")

    done = checkout.run("script/train")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert checkout.new_calls == ["script/TrainModel.py"]


@pytest.mark.parametrize("file", ["requirements/base.txt", "pyproject.toml"])
def test_changed_pins_are_installed_over_the_old_ones(checkout: Checkout, file: str) -> None:
    checkout.run("script/train")
    with open(checkout.folder / file, "a") as pins:
        pins.write("\n# changed\n")

    checkout.run("script/train")

    assert len(checkout.installs) == 2
    assert not any("venv" in call for call in checkout.new_calls)


def test_moved_checkout_makes_a_new_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("script/train")
    checkout.folder = checkout.folder.rename(tmp_path / "moved")

    checkout.run("script/train")

    assert checkout.new_calls[0] == f"-m venv --clear {tmp_path}/moved/.venv"


def test_environment_without_its_python_is_recreated(checkout: Checkout) -> None:
    checkout.run("script/train")
    (checkout.folder / ".venv/bin/python").unlink()

    checkout.run("script/train")

    assert checkout.new_calls[0].startswith("-m venv --clear")


def test_interrupted_setup_restarts(checkout: Checkout) -> None:
    checkout.run("script/train")
    (checkout.folder / "pyproject.toml").write_text("# changed")
    checkout.run("script/train", FAIL="--editable")

    done = checkout.run("script/train")

    assert done.returncode == 0
    assert checkout.new_calls[0].startswith("-m venv --clear")


def test_failed_install_shows_the_reason_of_pip_and_one_line(checkout: Checkout) -> None:
    done = checkout.run("script/train", FAIL="base.txt")

    assert done.returncode == 2
    assert "ERROR: no network\npip could not install" in done.stderr
    assert done.stdout == ""


def test_nvidia_driver_adds_the_cuda_libraries(checkout: Checkout) -> None:
    (checkout.path / "nvidia-smi").symlink_to(shutil.which("true") or "/bin/true")

    done = checkout.run("script/train")

    assert "-r requirements/base.txt -r requirements/gpu.txt" in checkout.installs[0]
    assert "CUDA" in done.stderr


def test_train_and_test_share_one_environment(checkout: Checkout) -> None:
    checkout.run("script/train")

    checkout.run("script/test", "--version")
    assert len(checkout.installs) == 1
    assert "requirements/dev.txt" in checkout.installs[0]

    checkout.run("script/train")
    assert checkout.installs == []


def test_arguments_keep_their_spaces_and_the_exit_code_is_returned(checkout: Checkout) -> None:
    done = checkout.run("script/train", "--set", "name=a b", FAIL="TrainModel", FAIL_WITH="75")

    assert done.returncode == 75
    assert checkout.new_calls[-1] == r"script/TrainModel.py --set name=a\ b"


def test_checks_come_before_the_tests_and_the_first_failure_ends_them(checkout: Checkout) -> None:
    checkout.run("script/test")
    tests = "-m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder"
    assert checkout.new_calls[-4:] == ["-m ruff check .", "-m ruff format --check .", "-m mypy", tests]

    done = checkout.run("script/test", FAIL="mypy", FAIL_WITH="1")
    assert done.returncode == 1
    assert checkout.new_calls[-1] == "-m mypy"


@pytest.mark.parametrize(
    ("option", "tests"),
    [("--fast", "not long and not slow and not gpu and not network"), ("--all", "not gpu and not network")],
)
def test_fast_and_all_run_the_same_checks_before_fewer_or_more_tests(
    checkout: Checkout, option: str, tests: str
) -> None:
    checkout.run("script/test")
    *checks, usual = checkout.new_calls[-4:]

    checkout.run("script/test", option)

    assert checkout.new_calls == [*checks, f"{usual} -m {tests.replace(' ', chr(92) + ' ')}"]


@pytest.mark.parametrize(
    "arguments", [("--fast", "tests/network"), ("tests/network", "--all"), ("--fast", "--all"), ("-x", "--fast", "-v")]
)
def test_fast_and_all_take_no_other_arguments(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    done = checkout.run("script/test", *arguments)

    assert done.returncode == 2
    assert "stands alone. Some of the tests: script/test tests/" in done.stderr
    assert checkout.new_calls == []


@pytest.mark.usefixtures("declare_run")
def test_a_test_that_uses_a_run_is_marked_long_automatically(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("long")


@pytest.mark.usefixtures("short_pipeline")
def test_a_test_that_uses_a_pipeline_is_marked_long_automatically(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("long")


def test_a_commit_runs_the_checks_of_script_test(checkout: Checkout) -> None:
    checkout.run("script/test")
    (repository,) = load_config(str(ROOT / ".pre-commit-config.yaml"))["repos"]

    assert repository["repo"] == "local"  # nothing is downloaded
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert entries == [f".venv/bin/python {call}" for call in checkout.new_calls[-4:-1]]
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


def test_with_arguments_only_pytest_runs_and_finding_no_test_is_a_failure(checkout: Checkout) -> None:
    checkout.run("script/test")

    done = checkout.run("script/test", "tests/network", "-x", FAIL="pytest", FAIL_WITH="5")

    assert done.returncode == 5
    assert checkout.new_calls == ["-m pytest tests/network -x"]


@pytest.mark.parametrize(
    ("version", "cure"),
    [("3.10", "python3.12 is Python 3.10."), ("3.14", "python3.12 is Python 3.14."), ("3.12-venv", "python3.12-venv")],
)
def test_unsupported_python_gets_one_clear_message(checkout: Checkout, version: str, cure: str) -> None:
    done = checkout.run("script/train", VERSION=version)

    assert done.returncode == 2
    assert done.stderr.startswith("Model Trainer needs Python 3.11, 3.12 or 3.13 in PATH.")
    assert cure in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (checkout.folder / ".venv").exists()


def test_machine_without_python_gets_a_message(checkout: Checkout) -> None:
    (checkout.path / "python3.12").unlink()

    done = checkout.run("script/train")

    assert done.returncode == 2
    assert "There is no python3." in done.stderr


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock they are trusted to take turns")
def test_two_scripts_started_at_once_install_once(checkout: Checkout) -> None:
    checkout.calls.write_text("")
    command = [str(checkout.folder / "script/train")]

    processes = [subprocess.Popen(command, env=checkout.environment, stderr=subprocess.DEVNULL) for _ in range(2)]

    assert [process.wait(timeout=30) for process in processes] == [0, 0]
    assert len(checkout.installs) == 2
    assert checkout.new_calls.count("script/TrainModel.py") == 2


@pytest.mark.parametrize("pins", ["base", "gpu", "dev"])
def test_every_pin_is_exact_and_has_no_url(pins: str) -> None:
    lines = (ROOT / f"requirements/{pins}.txt").read_text().splitlines()

    wanted = [line for line in lines if not line.startswith("#")]

    assert wanted
    assert all("==" in line.partition(";")[0] and "/" not in line for line in wanted)


def test_installed_packages_are_compatible() -> None:
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)

    assert check.returncode == 0, check.stdout
