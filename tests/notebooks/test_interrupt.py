"""Interrupting a notebook's kernel is like Ctrl-C: training stops after the step, saves and returns."""

from __future__ import annotations

import queue
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "script" / "execute_notebooks.py"))

TRAIN = """
from model_trainer import Hardware, ImageFolder, ModelSpec, Run, Training, train
spec = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
data = ImageFolder("train")
run = Run(spec=spec, weights=None, train_data=data, augment=(), training=Training(epochs=10_000, batch_size=4))
result = train(run)
"""
STATE = """
import signal
print(result.stopped, len(result.history) > 0, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


class Kernel:
    """A Jupyter kernel that runs cells."""

    def __init__(self, folder: Path) -> None:
        self.manager: Any = type("ThisPython", (KernelManager,), {"kernel_spec": SCRIPT["ThisPython"].kernel_spec})()
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, interrupt_at: str = "") -> dict[str, list[Any]]:
        """Runs a cell, and returns the contents of its messages by type."""
        parent = self.client.execute(code)
        contents: dict[str, list[Any]] = {}
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=120)
            except queue.Empty:
                raise AssertionError("the kernel does not answer") from None
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != parent:
                continue
            contents.setdefault(kind, []).append(content)
            if interrupt_at and interrupt_at in str(content.get("data")):
                interrupt_at = ""
                self.manager.interrupt_kernel()
            if kind == "status" and content["execution_state"] == "idle":
                return contents

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path, draw_folder: Any) -> Iterator[Kernel]:
    draw_folder(tmp_path / "train", 5)
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


@pytest.mark.slow
def test_interrupting_a_kernel_stops_training_and_returns_a_result(kernel: Kernel) -> None:
    shown = kernel.run(TRAIN, interrupt_at="epoch 3/10000")
    assert "error" not in shown
    assert len(shown["display_data"]) == 1  # messages and progress share one output, which is then updated
    last = shown["update_display_data"][-1]["data"]["text/plain"].splitlines()
    assert last[-2].startswith("SIGINT: stopping after this step and saving.")
    assert last[-1].startswith("Report: ")  # on the epochs so far
    printed = "".join(each["text"] for each in shown["stream"])
    assert "train(run, resume=True) continues." in printed
    assert {each["name"] for each in shown["stream"]} == {"stdout"}
    (state,) = kernel.run(STATE)["stream"]
    assert state["text"] == "SIGINT True True\n"
