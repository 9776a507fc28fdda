"""Prints a GPU report as tables, or converts it to JSON."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model_trainer.diagnosis.gpu.driver import oldest_driver
from model_trainer.diagnosis.gpu.facts import AllReduce, Device, Facts, GpuReport

__all__ = ["print_report", "to_dict"]

_PIPED_WIDTH = 160  # a file has no width of its own; rich would fold at 80

_NUMBERS = ("TFLOP/s", "error", "allowed")
_STYLES = {"right": "green", "wrong": "bold red", "failed": "yellow"}


def to_dict(report: GpuReport) -> dict[str, Any]:
    """The report as JSON types, with `ok`, and `right` for each device."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(report)))
    for fields, device in zip(plain["devices"], report.devices, strict=True):
        fields["right"] = device.right
        for check in fields["checks"]:
            if check["error"] == math.inf:  # which JSON lacks; the status is "wrong"
                check["error"] = None
    return {"ok": report.exit_code == 0, **plain}


def print_report(report: GpuReport, console: Console | None = None) -> None:
    """Prints the report; without colors and lines if standard output is not a terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    _print_versions(report.facts, console)
    for device in report.devices:
        _print_device(device, console)
    if report.all_reduce:
        console.print(_all_reduce_line(report.all_reduce))
    right = sum(device.right for device in report.devices)
    if right:
        console.print(f"\n{right} of {len(report.devices)} GPUs can train.", style="green")
    if report.diagnosis:
        console.print("\nNo GPU can be used; training runs on the CPU.", style="bold red")
        console.print(f"Likely reason: {report.diagnosis.reason}", markup=False)
        console.print(f"Cure: {report.diagnosis.cure}", markup=False)


def _print_versions(facts: Facts, console: Console) -> None:
    versions = facts.versions
    console.print(
        f"Model Trainer {versions.model_trainer}, Python {versions.python}, "
        f"TensorFlow {versions.tensorflow}, Keras {versions.keras}\n"
    )
    tensorflow = facts.tensorflow
    oldest = oldest_driver(tensorflow.built_cuda)
    table = _table("", "TensorFlow is built for", "this machine has")
    table.add_row("NVIDIA driver", f"{oldest} or later" if oldest else "", facts.driver.version or "none")
    table.add_row("CUDA", _needs(tensorflow.built_cuda), _version(facts, "libcudart"))
    table.add_row("cuDNN", _needs(tensorflow.built_cudnn), _version(facts, "libcudnn"))
    missing = [library.name for library in facts.libraries if not library.loaded]
    table.add_row("CUDA libraries", str(len(facts.libraries)), str(len(facts.libraries) - len(missing)))
    console.print(table)
    if 0 < len(missing) < len(facts.libraries):
        console.print(f"Not loaded: {', '.join(missing)}")


def _needs(built: str) -> str:
    return built or "not built with it"


def _version(facts: Facts, name: str) -> str:
    loaded = [library for library in facts.libraries if library.name.startswith(f"{name}.") and library.loaded]
    return (loaded[0].version or "yes") if loaded else "none"


def _print_device(device: Device, console: Console) -> None:
    details = [device.name or "unknown name"]
    if device.memory_bytes:
        details.append(f"{device.memory_bytes / 2**30:.1f} GiB")
    if device.compute_capability:
        details.append("compute capability {}.{}".format(*device.compute_capability))
    console.print(f"\n{device.device}: {', '.join(details)}")
    if device.failure:
        console.print(f"  failed: {device.failure}", style="bold red", markup=False)
    if not device.checks:
        return
    table = _table("operation", "precision", "TFLOP/s", "error", "allowed", "result")
    for check in device.checks:
        table.add_row(
            check.operation,
            check.precision,
            "" if check.teraflops is None else f"{check.teraflops:.1f}",
            "" if check.error is None else f"{check.error:.1e}",
            "" if check.tolerance is None else f"{check.tolerance:.1e}",
            Text(" ".join(filter(None, [check.status, check.note and f"({check.note})"])), _STYLES[check.status]),
        )
    console.print(table)


def _all_reduce_line(all_reduce: AllReduce) -> Text:
    line = f"\nAll-reduce over {', '.join(all_reduce.devices)}: {all_reduce.status}"
    if all_reduce.seconds:
        line += f", {all_reduce.size_bytes / 2**20:.0f} MiB in {all_reduce.seconds * 1000:.2f} ms"
    if all_reduce.note:
        line += f" ({all_reduce.note})"
    if all_reduce.status != "right":
        line += "\nTraining on several GPUs will not work; use one: --set hardware.devices=1"
    return Text(line, _STYLES[all_reduce.status])


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", overflow="fold")
    return table
