#!/usr/bin/env python3
"""Executes the notebooks of docs/notebooks/ and saves their outputs: .venv/bin/python script/execute_notebooks.py

Each runs in a new kernel of this Python and in an empty folder, so that it needs nothing but the package. Run this
after changing a notebook, or the output of code that it uses, and commit the result.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
TIMEOUT_SECONDS = 300  # for each cell


class ThisPython(AsyncKernelManager):
    """Starts kernels of the Python that runs this script, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=arguments, display_name="Python 3", language="python")


def execute(path: Path, folder: Path) -> Any:
    """Executes the notebook at `path` in a new kernel with the working directory `folder`, and returns it with outputs.

    Raises:
        CellExecutionError: a cell raised an exception.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_SECONDS,
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute()
    # Without the version of Python, and with the kernel's usual name, so that every Jupyter can open it.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "executed": code_digest(notebook),
    }
    return notebook


def code_digest(notebook: Any) -> str:
    """A hex digest of the code cells; the metadata stores the digest of the code that produced the outputs."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def main() -> None:
    """Executes the notebooks named on the command line, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            print(path, flush=True)
            nbformat.write(execute(path, Path(folder)), path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
