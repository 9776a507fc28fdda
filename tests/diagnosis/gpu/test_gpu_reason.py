"""Diagnoses of machines on which no GPU can be used."""

from __future__ import annotations

from dataclasses import replace

import pynvml
import pytest

from model_trainer.diagnosis.gpu.driver import driver_command, is_too_old
from model_trainer.diagnosis.gpu.facts import (
    Check,
    Device,
    Diagnosis,
    Driver,
    DriverGpu,
    Facts,
    Library,
    Machine,
    TensorFlow,
)
from model_trainer.diagnosis.gpu.reason import diagnose

RTX = DriverGpu("NVIDIA GeForce RTX 3090", 24 * 2**30, (8, 6))
CUDART = Library(
    "libcudart.so.12", True, "nvidia-cuda-runtime-cu12", path="/site/nvidia/cuda_runtime/lib/libcudart.so.12"
)
CUSOLVER = Library(
    "libcusolver.so.11", True, "nvidia-cusolver-cu12", path="/site/nvidia/cusolver/lib/libcusolver.so.11"
)
NCCL = Library(
    "libnccl.so.2", False, "nvidia-nccl-cu12", error="libnccl.so.2: cannot open shared object file: No such file"
)

# A machine on which everything is in order, except that TensorFlow registers no GPU.
HEALTHY = Facts(
    machine=Machine(distribution=("ubuntu", "debian"), pci_gpus=("Intel", "NVIDIA"), device_files=2),
    driver=Driver(version="550.54.15", init_code=0, cuda_version="12.4", gpus=(RTX,), smi_gpus=(RTX.name,)),
    libraries=(CUDART, CUSOLVER, NCCL),
    tensorflow=TensorFlow(with_cuda=True, built_cuda="12.5.1", built_capabilities=("sm_60", "sm_89", "compute_90")),
)
NO_DRIVER = Driver(libcuda_error="libcuda.so.1: cannot open shared object file: No such file or directory")


def facts(**changes: dict[str, object]) -> Facts:
    """HEALTHY with other fields: `facts(driver={"version": "470.82"})`."""
    changed = {name: replace(getattr(HEALTHY, name), **fields) for name, fields in changes.items()}  # type: ignore[arg-type]
    return replace(HEALTHY, **changed)  # type: ignore[arg-type]


def diagnosed(facts: Facts, *devices: Device) -> Diagnosis:
    diagnosis = diagnose(facts, devices)
    assert diagnosis is not None
    return diagnosis


def missing(library: Library, error: str = "cannot open shared object file: No such file or directory") -> Library:
    return replace(library, path="", error=f"{library.name}: {error}")


def test_a_tensorflow_that_cannot_be_imported_is_named_first() -> None:
    diagnosis = diagnosed(replace(facts(tensorflow={"import_error": "ImportError: bad file"}), driver=NO_DRIVER))
    assert diagnosis.code == "no_tensorflow"
    assert "ImportError: bad file" in diagnosis.reason
    assert "pip install" in diagnosis.cure


@pytest.mark.parametrize(("system", "code"), [("Darwin", "apple"), ("Windows", "windows")])
def test_macos_and_windows_are_named_as_the_reason(system: str, code: str) -> None:
    assert diagnosed(replace(facts(machine={"system": system}), driver=NO_DRIVER)).code == code


def test_a_machine_without_an_nvidia_card_needs_no_driver() -> None:
    diagnosis = diagnosed(replace(facts(machine={"pci_gpus": ("Intel",)}), driver=NO_DRIVER))
    assert diagnosis.code == "no_gpu"
    assert "install" not in diagnosis.cure


def test_an_amd_card_is_named_as_such() -> None:
    assert "AMD" in diagnosed(replace(facts(machine={"pci_gpus": ("AMD",)}), driver=NO_DRIVER)).reason


@pytest.mark.parametrize("pci_gpus", [("NVIDIA",), None])
def test_a_missing_driver_is_cured_by_the_command_of_the_distribution(pci_gpus: tuple[str, ...] | None) -> None:
    diagnosis = diagnosed(replace(facts(machine={"pci_gpus": pci_gpus}), driver=NO_DRIVER))
    assert diagnosis.code == "no_driver"
    assert diagnosis.cure == "sudo ubuntu-drivers install && sudo reboot"


def test_a_gpu_missing_from_the_pci_bus_exists_if_the_driver_lists_it() -> None:
    assert diagnosed(facts(machine={"pci_gpus": ()})).code == "unknown"


def test_a_container_without_gpu_access_needs_the_gpus_option() -> None:
    diagnosis = diagnosed(replace(facts(machine={"container": True}), driver=NO_DRIVER))
    assert diagnosis.code == "container"
    assert "--gpus all" in diagnosis.cure


def test_a_driver_without_libcuda_is_distinguished_from_no_driver() -> None:
    driver = replace(NO_DRIVER, version="550.54.15")
    diagnosis = diagnosed(replace(HEALTHY, driver=driver))
    assert diagnosis.code == "no_libcuda"
    assert "libcuda.so.1" in diagnosis.reason


@pytest.mark.parametrize("driver", [{"init_code": 803}, {"nvml_code": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}])
def test_an_updated_driver_needs_a_reboot(driver: dict[str, object]) -> None:
    assert diagnosed(facts(driver=driver)).cure == "sudo reboot"


def test_an_old_driver_is_named_with_the_required_version() -> None:
    diagnosis = diagnosed(facts(driver={"version": "470.82.01", "init_code": 0}))
    assert diagnosis.code == "old_driver"
    assert "470.82.01" in diagnosis.reason
    assert "525.60.13" in diagnosis.reason
    assert "ubuntu-drivers" in diagnosis.cure


def test_a_driver_older_than_libcuda_is_old_whatever_its_version() -> None:
    assert diagnosed(facts(driver={"init_code": 804, "gpus": ()})).code == "old_driver"


def test_a_device_file_without_permission_is_named() -> None:
    diagnosis = diagnosed(facts(machine={"closed_device_files": ("/dev/nvidia0",)}))
    assert "/dev/nvidia0" in diagnosis.reason
    assert "usermod" in diagnosis.cure


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_hidden_gpus_are_fixed_by_unsetting_the_variable(visible: str) -> None:
    diagnosis = diagnosed(facts(machine={"visible_devices": visible}, driver={"init_code": 100, "gpus": ()}))
    assert diagnosis.code == "hidden"
    assert repr(visible) in diagnosis.reason
    assert diagnosis.cure == "unset CUDA_VISIBLE_DEVICES"


def test_cuda_visible_devices_with_an_existing_gpu_is_not_the_reason() -> None:
    assert diagnosed(facts(machine={"visible_devices": "0"})).code == "unknown"


def test_cuda_visible_devices_is_not_blamed_for_a_driver_that_fails() -> None:
    broken = facts(machine={"visible_devices": "0"}, driver={"init_code": 999, "gpus": (), "smi_gpus": ()})
    assert diagnosed(broken).code == "driver_fails"


def test_a_driver_without_a_device_is_distinguished_from_one_that_fails() -> None:
    assert diagnosed(facts(driver={"init_code": 100, "gpus": (), "smi_gpus": ()})).code == "no_device"
    diagnosis = diagnosed(facts(driver={"init_code": 999, "gpus": ()}))
    assert diagnosis.code == "driver_fails"
    assert "999" in diagnosis.reason


NOT_LOADED = {"version": "", "nvml_code": pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "gpus": (), "smi_gpus": ()}


@pytest.mark.parametrize("init_code", [100, 999])
def test_a_kernel_module_that_is_not_loaded_is_cured_by_modprobe(init_code: int) -> None:
    diagnosis = diagnosed(facts(driver={**NOT_LOADED, "init_code": init_code}))
    assert diagnosis.code == "not_loaded"
    assert diagnosis.cure.startswith("sudo modprobe nvidia ")


def test_a_container_with_driver_libraries_but_no_gpu_needs_the_gpus_option() -> None:
    broken = facts(machine={"container": True, "device_files": 0}, driver={**NOT_LOADED, "init_code": 999})
    assert diagnosed(broken).code == "container"


def test_a_driver_without_a_device_is_reported_with_the_error_of_nvml() -> None:
    lost = {"init_code": 100, "gpus": (), "smi_gpus": (), "nvml_code": 15, "smi_error": "GPU 0: GPU is lost"}
    assert diagnosed(facts(driver=lost)).reason == "The NVIDIA driver runs but finds no GPU (GPU 0: GPU is lost)."


def test_a_tensorflow_without_cuda_is_cured_by_the_gpu_extra() -> None:
    diagnosis = diagnosed(facts(tensorflow={"with_cuda": False}))
    assert diagnosis.code == "cpu_build"
    assert ".[gpu]" in diagnosis.cure


def test_no_package_is_suggested_for_arm_machines() -> None:
    diagnosis = diagnosed(facts(tensorflow={"with_cuda": False}, machine={"architecture": "aarch64"}))
    assert "pip install" not in diagnosis.cure


def test_missing_cuda_libraries_are_cured_by_the_gpu_extra() -> None:
    diagnosis = diagnosed(replace(HEALTHY, libraries=(missing(CUDART), missing(CUSOLVER))))
    assert diagnosis.code == "no_cuda"
    assert ".venv/bin/pip install -e '.[gpu]'" in diagnosis.cure


def test_a_missing_required_library_is_named() -> None:
    diagnosis = diagnosed(replace(HEALTHY, libraries=(CUDART, missing(CUSOLVER), NCCL)))
    assert "libcusolver.so.11 (cannot open shared object file: No such file or directory)" in diagnosis.reason
    assert "libnccl" not in diagnosis.reason
    assert ".[gpu]" in diagnosis.cure


def test_a_damaged_library_is_cured_by_reinstalling_it() -> None:
    diagnosis = diagnosed(replace(HEALTHY, libraries=(CUDART, missing(CUSOLVER, "file too short"))))
    assert "file too short" in diagnosis.reason
    assert diagnosis.cure == "pip install --force-reinstall --no-deps nvidia-cusolver-cu12"


def test_a_library_that_only_tensorflow_does_not_find_is_cured_by_ld_library_path() -> None:
    diagnosis = diagnosed(
        facts(tensorflow={"refused": (("libcusolver.so.11", "no such file"), ("libcuda.so.1", "no"))})
    )
    assert diagnosis.code == "library_path"
    assert diagnosis.cure == 'export LD_LIBRARY_PATH="/site/nvidia/cusolver/lib:$LD_LIBRARY_PATH"'


def test_a_gpu_that_is_too_old_for_tensorflow_is_named() -> None:
    old = DriverGpu("GeForce GTX 980", 4 * 2**30, (5, 2))
    diagnosis = diagnosed(facts(driver={"gpus": (old,)}))
    assert diagnosis.code == "old_gpu"
    assert "6.0" in diagnosis.reason
    assert "GeForce GTX 980 has 5.2" in diagnosis.reason


def test_an_unknown_reason_shows_the_last_message_of_tensorflow() -> None:
    diagnosis = diagnosed(facts(tensorflow={"log": "first\nthe last message"}))
    assert diagnosis.code == "unknown"
    assert "the last message" in diagnosis.reason


def check(status: str, note: str = "", precision: str = "float32") -> Check:
    return Check("convolution", precision, status, note=note)  # type: ignore[arg-type]


def test_a_gpu_that_computes_correctly_has_no_diagnosis() -> None:
    assert diagnose(HEALTHY, [Device("GPU:0", checks=(check("right"),))]) is None


def test_one_correct_gpu_of_two_is_enough() -> None:
    assert diagnose(HEALTHY, [Device("GPU:0", failure="crash"), Device("GPU:1", checks=(check("right"),))]) is None


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (Device("GPU:0", checks=(check("failed", "ResourceExhaustedError: OOM when allocating"),)), "memory"),
        (Device("GPU:0", checks=(check("failed", "UnimplementedError: DNN library is not found"),)), "cudnn"),
        (Device("GPU:0", checks=(check("failed", "no kernel image is available for execution"),)), "no_kernel"),
        (Device("GPU:0", checks=(check("wrong"),)), "wrong"),
        (Device("GPU:0", failure="the process was ended by SIGABRT."), "fails"),
    ],
)
def test_the_cause_is_inferred_from_the_failed_checks(device: Device, code: str) -> None:
    assert diagnosed(HEALTHY, device).code == code


def test_a_gpu_without_bfloat16_can_still_train() -> None:
    assert Device("GPU:0", checks=(check("right"), check("failed", precision="bfloat16"))).right


def test_a_gpu_that_computes_wrong_float16_results_is_not_right() -> None:
    assert not Device("GPU:0", checks=(check("right"), check("wrong", precision="float16"))).right


def test_a_gpu_without_checks_is_not_right() -> None:
    assert not Device("GPU:0").right


@pytest.mark.parametrize(
    ("driver", "cuda", "too_old"),
    [
        ("525.60.13", "12.5.1", False),
        ("525.60.11", "12.5.1", True),
        ("1000.1", "12.5.1", False),
        ("470.82.01", "99.0", False),
        ("", "12.5.1", False),
    ],
)
def test_driver_versions_compare_as_numbers(driver: str, cuda: str, too_old: bool) -> None:
    assert is_too_old(driver, cuda) is too_old


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(distribution=("linuxmint", "ubuntu", "debian")), "ubuntu-drivers"),
        (Machine(distribution=("debian",)), "apt install nvidia-driver"),
        (Machine(distribution=("fedora",)), "akmod-nvidia"),
        (Machine(distribution=("another",)), "https://www.nvidia.com/drivers"),
        (Machine(distribution=("ubuntu",), wsl=True), "wsl --update"),
    ],
)
def test_driver_command_matches_the_system(machine: Machine, words: str) -> None:
    assert words in driver_command(machine)
