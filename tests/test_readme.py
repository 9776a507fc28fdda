"""What the README tells people to type exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import model_trainer
from model_trainer.cli.main import app
from model_trainer.run.run import Run
from model_trainer.sources.source import Source

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


DATA = (ROOT / "docs" / "data.md").read_text()
NETWORKS = (ROOT / "docs" / "networks.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def declare(code: str) -> dict[str, object]:
    """The names that `code` declares with everything imported from the package."""
    declared: dict[str, object] = {}
    exec(f"from model_trainer import *\n{code}", declared)
    return declared


TYPED = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
COMMANDS = {command.callback.__name__ for command in app.registered_commands}


def test_scripts_that_are_typed_exist() -> None:
    scripts = set(re.findall(r"script/[\w.]+", README))
    assert {"script/train", "script/test", "script/GPUtest.py", "script/TrainModel.py"} <= scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_commands_that_are_named_exist_and_none_is_left_out() -> None:
    named = set(re.findall(r"model-trainer (\w+) ", README)) | set(re.findall(r"`model-trainer (\w+)`", README))
    named -= {"train"} - COMMANDS
    assert named == COMMANDS


def test_options_that_are_set_exist() -> None:
    from model_trainer import ImageFolder, ModelSpec

    run = Run(spec=ModelSpec(target_size=[8, 8, 3]), train_data=ImageFolder("data"))
    names = [name for line in TYPED for name in re.findall(r"--set ([\w.]+)=", line)]
    assert names
    for name in names:
        if name == "training.epoch":  # the README's own example of a misspelt one
            continue
        value = run
        for part in name.split("."):
            value = getattr(value, part)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_imports_what_there_is(block: str) -> None:
    tree = ast.parse(block)
    public = set(model_trainer.__all__)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "model_trainer":
            assert {alias.name for alias in node.names} - {"*"} <= public


@pytest.mark.parametrize("block", [block for block in blocks("python") if "run = Run(" in block])
def test_a_run_in_the_readme_can_be_declared(block: str) -> None:
    declared = declare(block.replace("result = train(run)", ""))
    run = declared["run"]
    assert isinstance(run, Run)
    assert Run.from_dict(run.to_dict()) == run


@pytest.mark.parametrize("block", blocks("python", DATA))
def test_sources_in_the_documentation_can_be_declared(block: str) -> None:
    declare(block)


@pytest.mark.parametrize("line", re.findall(r"\| `train_data=(.*),` \|", DATA))
def test_each_line_of_the_table_of_sources_declares_one(line: str) -> None:
    assert isinstance(declare(f"source = {line}")["source"], Source)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


@pytest.mark.long
def test_the_own_model_of_docs_networks_can_be_declared_and_built() -> None:
    from model_trainer.network.layers import freeze
    from model_trainer.network.own_model import build_own_network

    run = declare(blocks("python", NETWORKS)[0])["run"]
    assert isinstance(run, Run)
    network = build_own_network(run.network, run.spec, run.task, num_classes=10)
    assert tuple(network.features.shape) == (None, 3, 3, 1280)
    assert freeze(network.model, network, run.network)
