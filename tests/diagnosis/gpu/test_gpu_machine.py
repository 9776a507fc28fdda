"""Facts about the machine are read from its files, and CUDA's libraries are loaded in another process."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from model_trainer.cuda_libraries import cuda_folders, preload_cuda
from model_trainer.diagnosis.gpu import loader
from model_trainer.diagnosis.gpu.facts import Driver, Library
from model_trainer.diagnosis.gpu.libraries import CUDA_LIBRARIES, probe_libraries
from model_trainer.diagnosis.gpu.machine import probe_machine, probe_versions, read_driver_version

linux = pytest.mark.skipif(sys.platform != "linux", reason="shared libraries have other names elsewhere")


def write(root: Path, name: str, text: str) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_distribution_and_its_family_are_read(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", 'NAME="Pop!_OS"\nID=pop\nVERSION_ID="22.04"\nID_LIKE="ubuntu debian"\n')
    assert probe_machine(tmp_path).distribution == ("pop", "ubuntu", "debian")


def test_only_display_controllers_count_as_gpus(tmp_path: Path) -> None:
    for slot, vendor, kind in (
        ("00:01.0", "0x10de", "0x030200"),
        ("00:02.0", "0x1002", "0x030000"),
        ("00:03.0", "0x10de", "0x040300"),  # the audio device of a graphics card
    ):
        write(tmp_path, f"sys/bus/pci/devices/{slot}/vendor", f"{vendor}\n")
        write(tmp_path, f"sys/bus/pci/devices/{slot}/class", f"{kind}\n")
    assert probe_machine(tmp_path).pci_gpus == ("NVIDIA", "AMD")


def test_a_pci_bus_that_cannot_be_listed_is_distinguished_from_an_empty_one(tmp_path: Path) -> None:
    assert probe_machine(tmp_path).pci_gpus is None


def test_containers_wsl_and_device_files_are_detected(tmp_path: Path) -> None:
    write(tmp_path, ".dockerenv", "")
    write(tmp_path, "proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n")
    for name in ("nvidia0", "nvidiactl", "nvidia-caps"):
        write(tmp_path, f"dev/{name}", "")
    machine = probe_machine(tmp_path)
    assert (machine.container, machine.wsl, machine.device_files) == (True, True, 2)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs)\n",
    ],
)
def test_driver_version_is_read_from_both_kernel_modules(tmp_path: Path, line: str) -> None:
    assert read_driver_version(write(tmp_path, "version", line + "GCC version:  gcc version 12.3.0\n")) == "550.54.15"


def test_without_a_kernel_module_the_driver_version_is_empty(tmp_path: Path) -> None:
    assert read_driver_version(tmp_path / "none") == ""


def test_versions_are_those_of_the_installed_packages() -> None:
    assert probe_versions().tensorflow == tf.__version__


def test_the_list_of_cuda_libraries_matches_the_installed_tensorflow() -> None:
    build = tf.sysconfig.get_build_info()
    if not build["is_cuda_build"]:
        pytest.skip("this TensorFlow is built without CUDA")
    names = {library.name for library in CUDA_LIBRARIES}
    assert f"libcudart.so.{build['cuda_version'].split('.')[0]}" in names
    assert f"libcudnn.so.{build['cudnn_version']}" in names


@linux
def test_a_system_library_is_loaded_and_its_path_is_reported() -> None:
    libraries, _ = probe_libraries([Library("libm.so.6", True, "")], folders=[])
    assert libraries[0].path.endswith("/libm.so.6")
    assert libraries[0].loaded


@linux
def test_missing_and_damaged_libraries_have_an_error(tmp_path: Path) -> None:
    damaged = write(tmp_path, "libdamaged.so.1", "this is not a library, only long enough to be read as one" * 10)
    wanted = [Library("libnone.so.1", True, ""), Library(damaged.name, True, ""), Library("libm.so.6", True, "")]
    libraries, _ = probe_libraries(wanted, folders=[str(tmp_path)])
    assert [library.loaded for library in libraries] == [False, False, True]
    assert "No such file" in libraries[0].error
    assert "invalid ELF header" in libraries[1].error


def test_a_library_that_crashes_the_loader_has_an_error_and_the_others_are_loaded() -> None:
    program = """
import json, os, sys
for name in json.loads(sys.argv[1])["libraries"]:
    print(json.dumps({"loading": name}), flush=True)
    if name == "deadly": os._exit(139)
    print(json.dumps({"library": {"name": name, "path": "/lib/" + name, "version": "1"}}), flush=True)
"""
    wanted = [Library(name, True, "") for name in ("first", "deadly", "last")]
    libraries, _ = probe_libraries(wanted, loader=[sys.executable, "-c", program])
    assert [library.path for library in libraries] == ["/lib/first", "", "/lib/last"]
    assert "ended the process with code 139" in libraries[1].error


def test_a_loader_that_hangs_is_killed() -> None:
    program = "import time; time.sleep(60)"
    libraries, driver = probe_libraries(
        [Library("libm.so.6", True, "")], loader=[sys.executable, "-c", program], timeout_seconds=0.5
    )
    assert "longer than" in libraries[0].error
    assert driver == Driver()


class FakeCuda:
    """A fake of libcuda.so.1 with one GPU."""

    def __init__(self, init_code: int) -> None:
        self.init_code = init_code

    def cuInit(self, flags: int) -> int:
        return self.init_code

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = 12040
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = 1
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:
        out._obj.value = index
        return 0

    def cuDeviceGetName(self, out: Any, length: int, handle: Any) -> int:
        out.value = b"Tesla T4"
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, handle: Any) -> int:
        out._obj.value = 15 * 2**30
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, handle: Any) -> int:
        out._obj.value = {75: 7, 76: 5}[attribute]
        return 0


def test_the_driver_lists_the_name_memory_and_compute_capability_of_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeCuda(0))
    assert loader.read_driver() == {
        "init_code": 0,
        "cuda_version": "12.4",
        "gpus": [{"name": "Tesla T4", "memory_bytes": 15 * 2**30, "compute_capability": [7, 5]}],
    }


def test_a_driver_that_fails_to_initialize_has_its_error_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeCuda(999))
    assert loader.read_driver() == {"init_code": 999, "cuda_version": "12.4"}


def test_folders_of_pips_nvidia_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = write(tmp_path, "nvidia/cusolver/lib/libcusolver.so.11", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(library.parent) in cuda_folders()


def test_only_libraries_that_tensorflow_would_not_find_are_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "nvidia/cudnn/lib/libcudnn.so.9", "")
    wanted = write(tmp_path, "nvidia/cusolver/lib/libcusolver.so.11", "")
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    assert str(wanted) in preload_cuda()
    assert {Path(file).name for file in loaded} == {"libcusolver.so.11"}


def test_a_damaged_library_is_not_preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = write(tmp_path, "nvidia/cusolver/lib/libcusolver.so.11", "no library")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(damaged) not in preload_cuda()
