"""Only `storage/` reads and writes files, so that every part of the package works with any storage."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import model_trainer

PACKAGE = Path(model_trainer.__file__).parent

# These access the machine itself: device files, /proc, descriptors, pipes of a child process, a temporary folder shared
# by worker processes, and the files of the package.
OF_THE_MACHINE = {
    "cuda_libraries.py",
    "stderr_filter.py",
    "cli/errors.py",
    "diagnosis/gpu/loader.py",
    "diagnosis/gpu/machine.py",
    "diagnosis/gpu/process.py",
    "diagnosis/gpu/worker.py",
    "serving/http/page.py",
    "serving/server.py",
    "serving/workers.py",
}
# Names in `os` that concern text, the process or its environment, not files.
OF_NAMES = {
    "_exit", "PathLike", "cpu_count", "environ", "fsdecode", "fsencode", "fspath", "getpid", "kill", "killpg", "name",
    "path", "getcwd", "sched_getaffinity", "getpgid", "setsid", "strerror", "waitpid", "WNOHANG", "sep", "getppid",
}  # fmt: skip
OF_PATHS = {"abspath", "basename", "dirname", "expanduser", "isabs", "join", "normpath", "relpath", "split", "splitext"}
METHODS = {
    "chmod", "exists", "glob", "hardlink_to", "is_dir", "is_file", "is_symlink", "iterdir", "lstat", "mkdir", "open",
    "read_bytes", "read_text", "readlink", "rename", "resolve", "rglob", "rmdir", "stat", "symlink_to", "touch",
    "unlink", "walk", "write_bytes", "write_text",
}  # fmt: skip
FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if "storage" not in path.relative_to(PACKAGE).parts and str(path.relative_to(PACKAGE)) not in OF_THE_MACHINE
)


# Objects that have a method of the same name but are not paths.
NO_PATHS = {"Image", "entry", "h5g", "h5o", "self._stack"}
MODULES = {"glob", "mmap", "os", "shutil", "tempfile"}


def file_accesses(tree: ast.AST) -> list[str]:
    """The places where code opens, writes or looks for files itself, as `line: expression`.

    Access by libraries is not detected: HDF5, Keras, Pillow, NumPy and matplotlib get local paths from
    `files.local_copy`, `files.atomic_write` and `filled_folder`; TFDS, ArrayRecord and TFRecord have their own readers.
    """
    return [f"{node.lineno}: {ast.unparse(node)}" for node in ast.walk(tree) if _is_file_access(node)]


def _is_file_access(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "open"
    if isinstance(node, ast.ImportFrom):
        return node.module in MODULES  # the imported names could not be recognized
    if isinstance(node, ast.Import):
        return any(each.name in MODULES and each.asname is not None for each in node.names)
    if not isinstance(node, ast.Attribute):
        return False
    owner, _, name = ast.unparse(node).rpartition(".")
    return (
        (owner == "os" and name not in OF_NAMES)
        or (owner == "os.path" and name not in OF_PATHS)
        or (owner == "shutil" and name not in {"which", "get_terminal_size"})
        or owner in {"glob", "mmap", "tempfile"}
        or (owner == "io" and name in {"FileIO", "open", "open_code"})
        or "gfile" in owner
        or (name in METHODS and owner not in NO_PATHS and owner not in {"files", "os", "os.path"})
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_storage_accesses_files(path: Path) -> None:
    assert file_accesses(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        "open('a')", "map(open, 'a')", "from os import listdir", "import shutil as s", "io.FileIO('a')",
        "os.listdir('a')", "os.path.exists('a')", "shutil.rmtree('a')", "Path('a').read_text()",
        "(folder / 'a').unlink()", "tempfile.mkdtemp()", "tf.io.gfile.exists('a')", "mmap.mmap(3, 0)",
    ],
)  # fmt: skip
def test_file_accesses_of_all_kinds_are_detected(code: str) -> None:
    assert file_accesses(ast.parse(code))


def test_the_modules_that_access_the_machine_exist() -> None:
    assert all((PACKAGE / name).is_file() for name in OF_THE_MACHINE)
