"""The layers of the package: imports point to the same layer or a lower one, and declaring loads no TensorFlow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import model_trainer
from model_trainer.tasks import Task

PACKAGE = Path(model_trainer.__file__).parent

LAYERS = [
    "version", "errors", "cpu_cores", "cuda_libraries", "stderr_filter", "quiet_tensorflow", "dotted", "messages",
    "display", "config", "user_code", "storage", "specs", "images", "metrics", "sources", "pipeline", "tasks", "run",
    "network", "model_files", "inference", "cluster", "training", "evaluation", "findings", "diagnosis", "report",
    "tuning", "index", "serving", "cloud", "api", "cli",
]  # fmt: skip
# Modules that may import from any layer: the public names, __main__, and the network for tests.
EXEMPT = {"__init__", "__main__", "testing"}

FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in {f"{name}.py" for name in EXEMPT}
)


def layer_of(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


def imported_modules(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [name for name in names if name.startswith("model_trainer.")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_the_same_layer_or_lower(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    higher = [name for name in imported_modules(path) if layer_of(name) > layer]
    assert not higher


def test_imported_modules_lists_imports() -> None:
    assert "model_trainer.run.run" in imported_modules(PACKAGE / "training" / "prepare.py")


def test_no_code_outside_of_tasks_checks_the_class_of_a_task() -> None:
    tasks = set(Task.kinds())
    checks = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] != "tasks"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass")
        if tasks & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    }
    assert tasks >= {"Classification", "MultiLabel"}
    assert not checks


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_has_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


HTML = re.compile(
    r"</\w|<!DOCTYPE|<!--|<(a|b|body|br|code|div|em|fig\w+|g|h[1-6]|head|hr|html|i|img|input|li|link|main|meta|ol|p|path|pre"
    r"|rect|script|section|small|span|strong|style|sub|svg|table|td|text|th|title|tr|ul)(?=[\s/>]|$)"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_html_is_written_in_templates_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [f"line {node.lineno}: {node.value}" for node in strings if HTML.search(node.value)]


def test_the_html_pattern_matches_tags_only() -> None:
    for text in ("<p>", '<a href="', "</td>", "<br/>", "x <svg"):
        assert HTML.search(text)
    for text in ("<I", "output/<name>-<date>", "a < b", "<lambda>"):
        assert not HTML.search(text)


def test_one_module_renders_html_and_nothing_is_exempt_from_escaping() -> None:
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in FILES}
    assert [name for name, source in sources.items() if re.search(r"\bjinja2\b", source)] == ["display/pages.py"]
    assert not [name for name, source in sources.items() if re.search(r"\bmarkupsafe\b|\bMarkup\b", source)]


def modules_loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_declaring_a_run_loads_no_tensorflow() -> None:
    loaded = modules_loaded_by("import runpy; runpy.run_path('script/TrainModel.py', run_name='declared')")
    assert "model_trainer.run.run" in loaded
    assert not loaded & {"tensorflow", "keras", "sklearn", "matplotlib", "h5py", "jinja2", "pyarrow"}


def test_the_command_line_loads_no_tensorflow() -> None:
    loaded = modules_loaded_by("import model_trainer.cli.main")
    assert "model_trainer.cli.train" in loaded
    assert not loaded & {"tensorflow", "keras", "sklearn", "matplotlib", "h5py", "jinja2", "pyarrow"}


def test_every_public_name_can_be_imported() -> None:
    for name in model_trainer.__all__:
        assert getattr(model_trainer, name) is not None


def test_public_names_are_the_same_for_python_and_for_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(model_trainer.__all__) - {"__version__"}
