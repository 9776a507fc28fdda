"""Reads what the operating system knows about GPUs and their driver, without loading libraries."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from model_trainer.diagnosis.gpu.facts import Machine, Versions

__all__ = ["probe_machine", "probe_versions", "read_driver_version"]

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


def probe_versions() -> Versions:
    """The versions of the installed Python packages."""
    return Versions(
        model_trainer=_version("model-trainer"),
        python=platform.python_version(),
        tensorflow=_version("tensorflow") or _version("tensorflow-cpu"),
        keras=_version("keras"),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def probe_machine(root: Path = Path("/")) -> Machine:
    """Reads the machine's files under `root`."""
    device_files = sorted((root / "dev").glob("nvidia[0-9]*")) + sorted((root / "dev").glob("nvidiactl"))
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        distribution=_read_distribution(root / "etc/os-release"),
        container=(root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
        wsl="microsoft" in _read(root / "proc/sys/kernel/osrelease").lower(),
        pci_gpus=_read_pci_gpus(root / "sys/bus/pci/devices"),
        device_files=len(device_files),
        closed_device_files=tuple(str(file) for file in device_files if not os.access(file, os.R_OK | os.W_OK)),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def _read_distribution(file: Path) -> tuple[str, ...]:
    fields = dict(re.findall(r'^(ID|ID_LIKE)="?([^"\n]*)"?$', _read(file), re.MULTILINE))
    return tuple(f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split())


def _read_pci_gpus(folder: Path) -> tuple[str, ...] | None:
    if not folder.is_dir():
        return None
    vendors = []
    for device in sorted(folder.iterdir()):
        # Class 03 is a display controller: 0300 with a monitor's connector, 0302 without, as in a data center.
        if _read(device / "class").startswith("0x03"):
            vendors.append(_VENDORS.get(_read(device / "vendor").strip(), "another vendor"))
    return tuple(vendors)


def read_driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the running kernel module, such as `550.54.15`; empty if none runs."""
    match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", _read(file))
    return match[1] if match else ""


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
