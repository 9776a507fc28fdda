"""Every code block of README.md and docs/ works. There is one rule for each language:

python    The blocks of a page run one after another in one session, where functions that read data, train, or open a
          model are mocks; each declared run survives JSON. Blocks that call Keras' own `fit` or use packages that are
          not ours are only parsed. All names, imports and keyword arguments exist.
console   Named files exist, commands parse, and `--set` changes a run, or fails with the error that is shown.
bash      The shell parses it, and our command line parses our commands in it.
yaml      It parses, and so do our commands in it.
json      It parses.
csv       It is a manifest.
toml      It is a valid `model-trainer.toml`.
text      Prose.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

import model_trainer
from model_trainer import Manifest, Run
from model_trainer.cli.main import app
from model_trainer.cli.overrides import load_run, with_overrides
from model_trainer.errors import ConfigError
from model_trainer.sources.source import Source
from model_trainer.storage import configuration

ROOT = Path(__file__).parents[2]
PROSE = "text"
NOT_OURS = {
    "keras_model_specs",
    "keras_trainer",
    "my_code",
    "ray",
    "requests",
    "sagemaker",
}  # packages that may not be installed here
LAUNCHERS = {"mpirun", "srun", "torchrun"}
OTHERS_COMMANDS = {"cd", "export", "git", "source", ".venv/bin/tensorboard"}
OTHERS_KEYWORDS = {  # arguments of functions of Keras, TensorFlow, h5py, keras-trainer, and of our own functions
    "crop_to_aspect_ratio", "inter_op_parallelism_threads", "iterator_mode", "libver", "random_crop_size", "recursive",
    "reduce_retracing", "stopped", "trust", "use_ema", "validation_split",
}  # fmt: skip
DECLARED = [each for name in model_trainer.__all__ if hasattr(each := getattr(model_trainer, name), "model_fields")]
COMMANDS: dict[str, click.Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_block_has_a_language_with_a_rule(block: Any) -> None:
    rules = {name.removeprefix("test_").split("_")[0] for name in globals() if name.startswith("test_")}
    assert block.language in rules | {PROSE}


# Python


def test_python_runs(python_block: Any, session_of: Callable[[Path], Any]) -> None:
    session = session_of(python_block.page)
    before = dict(session.names)
    names = session.run_to(python_block)
    for name, value in names.items():
        if isinstance(value, Run) and before.get(name) is not value:
            assert_survives_json(value)
    check_names(python_block.text, names)


def assert_survives_json(run: Run) -> None:
    data = json.loads(json.dumps(run.to_dict()))
    if '"Live"' in json.dumps(data):
        with pytest.raises(ConfigError, match="live Python object"):
            Run.from_dict(data)
    else:
        assert Run.from_dict(data) == run


def check_names(code: str, known: dict[str, Any]) -> None:
    """Fails unless all names, imports and keyword arguments in the code exist; `known` are the names of its session."""
    nodes = list(ast.walk(ast.parse(code)))
    imported: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name).split(".")[0]: module_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert "*" not in {alias.name for alias in node.names}, "examples import by name"
            module = module_of(str(node.module))
            imported |= {alias.asname or alias.name: module and getattr(module, alias.name) for alias in node.names}
    defined = {*dir(builtins), *known, *imported}
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            defined.add(node.id)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
    assert {node.id for node in nodes if isinstance(node, ast.Name)} <= defined
    for node in nodes:
        if isinstance(node, ast.Attribute):
            value_of(node, imported)
        elif isinstance(node, ast.Call) and node.keywords:
            function = value_of(node.func, imported)
            unknown = {keyword.arg for keyword in node.keywords if keyword.arg} - keywords_of(function)
            assert not unknown or takes_any(function), f"{ast.unparse(node.func)} does not take {unknown}"


def module_of(name: str) -> Any:
    """The module; None for a package that may not be installed here."""
    return None if name.split(".")[0] in NOT_OURS else importlib.import_module(name)


def value_of(node: ast.expr, values: dict[str, Any]) -> Any:
    """The object that a dotted name refers to, starting from `values`; None if the expression is not such a name."""
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = value_of(node.value, values)
    return getattr(owner, node.attr) if owner is not None else None


def keywords_of(function: Any) -> set[str | None]:
    """The keyword arguments of a function or a `Config` class; empty for None."""
    if function is None:
        return set()
    if "model_fields" in dir(function):
        return {name for key, field in function.model_fields.items() for name in (key, field.alias)}
    return set(inspect.signature(function).parameters)


def takes_any(function: Any) -> bool:
    """Whether a function takes any keyword argument; a `Config` class with its own `__init__`, such as `Call`, does."""
    if function is None:
        return True
    if "model_fields" in dir(function):
        return "__init__" in vars(function)
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


# Command lines


@pytest.fixture(scope="module")
def declared() -> Run:
    return load_run(str(ROOT / "script" / "TrainModel.py"), trust=True)


def test_console_commands_parse(console_block: Any, declared: Run) -> None:
    lines = console_block.text.replace("\\\n", " ").splitlines()
    typed = [number for number, line in enumerate(lines) if re.match(r"(?:\w+)?\$ ", line)]
    assert typed, "no line begins with `$ `"
    for number in typed:
        shown = lines[number + 1] if number + 1 < len(lines) else ""
        for words in simple_commands(lines[number].partition("$ ")[2]):
            overrides = check_words(words)
            if shown.startswith("Error: "):
                with pytest.raises(ConfigError) as error:
                    with_overrides(declared, overrides)
                assert f"Error: {error.value}" == shown
            else:
                with_overrides(declared, overrides)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command in a line of shell, without `;`, `&`, `|` and leading variable assignments."""
    parser = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    parser.whitespace_split = True
    words: list[str] = []
    for word in [*parser, ";"]:
        if set(word) <= set(";&|"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Z_]+=", word):
            words.append(word)


def check_words(words: Sequence[str]) -> list[str]:
    """Fails if a command is invalid; returns the values of its `--set` options."""
    program, *rest = words
    name = program.removeprefix(".venv/bin/")
    if program.startswith(("script/", "benchmarks/")):
        assert (ROOT / program).is_file()
        return check_script(program, rest)
    if name == "model-trainer":
        return check_command(rest)
    if name in LAUNCHERS:
        return check_command(rest[1 + [word.replace("_", "-") for word in rest].index("model-trainer") :])
    if name == "python":
        assert rest[0] == "-m" or (ROOT / rest[0]).is_file()
    elif name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert all(extra in extras for word in rest for extra in re.findall(r"\[(\w+)\]", word))
    elif name == "mkdocs":
        assert rest[0] in {"build", "serve"}
    else:
        assert program in OTHERS_COMMANDS, f"no rule for {program!r}"
    return []


def check_script(program: str, arguments: list[str]) -> list[str]:
    if program == "script/train":
        return check_command(["train", "script/TrainModel.py", *(word for word in arguments if word != "--sample")])
    assert all((ROOT / word.split("::")[0]).exists() for word in arguments if word.startswith("tests/"))
    return []


def check_command(words: Sequence[str]) -> list[str]:
    """Parses the words after `model-trainer`, failing as the command line would; returns the values of `--set`."""
    context = COMMANDS[words[0]].make_context(words[0], list(words[1:]))
    overrides: list[str] = context.params.get("overrides") or []
    return overrides


def test_bash_parses(bash_block: Any) -> None:
    assert not subprocess.run(["bash", "-n"], input=bash_block.text, text=True, capture_output=True).stderr
    for line in bash_block.text.splitlines():
        if "model-trainer " in line and not line.startswith("#"):
            for words in simple_commands(line):
                check_words(words)


def test_yaml_parses(yaml_block: Any) -> None:
    for command in commands_in(list(yaml.safe_load_all(yaml_block.text))):
        check_words(command)


def commands_in(value: Any) -> Iterator[list[str]]:
    if isinstance(value, list) and value and value[0] == "model-trainer":
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from commands_in(inner)


def test_json_parses(json_block: Any) -> None:
    json.loads(json_block.text)


def test_toml_is_a_valid_configuration(toml_block: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model-trainer.toml").write_text(toml_block.text)
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", str(tmp_path / "model-trainer.toml"))
    assert {value.source for value in configuration.all_values()} != {"default"}


def test_csv_parses_as_a_manifest(csv_block: Any, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(csv_block.text)
    assert len(Manifest(str(tmp_path / "table.csv")).read()) == csv_block.text.count("\n") - 1


# Code in a line of text


def test_commands_and_files_in_the_text_exist(page: Path) -> None:
    for code in inline_code(page):
        words = code.replace("[", " ").replace("]", " ").split()
        if len(words) > 1 and words[0].endswith("model-trainer") and re.match(r"[a-z]", words[1]):
            options = {option for parameter in COMMANDS[words[1]].params for option in parameter.opts}
            assert {word for word in words[2:] if word.startswith("--")} <= options
        for file in re.findall(r"(?<![\w/.])(?:script|benchmarks|tests|docs)/[\w/.*-]*[\w*]", code):
            assert list(ROOT.glob(file)), f"{code} names {file}"
        for file in re.findall(r"(?<![\w/])(?:[\w-]+/)+test_\w+\.py", code):
            assert (ROOT / file).is_file() or (ROOT / "tests" / file).is_file() or list((ROOT / "tests").rglob(file))


def test_options_that_the_text_sets_exist(page: Path, declared: Run) -> None:
    runs = [declared, declared.changed("train_data", Manifest("data/train.csv"))]
    for code in inline_code(page):
        for name in re.findall(r"--set '?([\w.]+)=", code):
            assert name == "name" or any(has_option(run, name) for run in runs), code


def test_options_that_the_text_names_exist(page: Path, declared: Run) -> None:
    """`training.ema_decay` is an option of a run, and `batch_norm_momentum` in `batch_norm_momentum="auto"` a field."""
    fields = {name for value in DECLARED for key, field in value.model_fields.items() for name in (key, field.alias)}
    for code in inline_code(page):
        dotted = re.match(r"((?:training|network|task|spec|hardware)(?:\.\w+)+)(?:=|$)", code)
        if dotted and not dotted[1].endswith((".json", ".train_model")):  # a file, or a module of training/
            assert has_option(declared, dotted[1]), code
        keyword = re.match(r"(\w+)=", code)
        assert not keyword or keyword[1] in fields | OTHERS_KEYWORDS, code


def test_calls_in_the_text_have_existing_arguments(page: Path) -> None:
    for code in inline_code(page):
        for call in calls_in(code):
            function = getattr(model_trainer, ast.unparse(call.func), None)
            unknown = {keyword.arg for keyword in call.keywords if keyword.arg} - keywords_of(function)
            assert not unknown or takes_any(function), f"{code}: {unknown}"


def calls_in(code: str) -> list[ast.Call]:
    """The calls in a piece of code; none if it is not Python."""
    try:
        return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []


def has_option(value: Any, name: str) -> bool:
    for attribute in name.split("."):
        if not hasattr(value, attribute):
            return False
        value = getattr(value, attribute)
    return True


def inline_code(page: Path) -> list[str]:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


@pytest.mark.parametrize("line", re.findall(r"\| `train_data=(.*),` \|", (ROOT / "docs" / "data.md").read_text()))
def test_each_row_of_the_table_of_sources_declares_a_source(line: str) -> None:
    assert isinstance(eval(line, {name: getattr(model_trainer, name) for name in model_trainer.__all__}), Source)
