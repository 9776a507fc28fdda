"""Derives the likely reason why no GPU can be used, and the fix, from the facts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from model_trainer.diagnosis.gpu.driver import driver_command, is_too_old, oldest_driver
from model_trainer.diagnosis.gpu.facts import Device, Diagnosis, Facts, Library

__all__ = ["diagnose"]

_INSTALL_CUDA = ".venv/bin/pip install -e '.[gpu]'  (script/train does it, too)"
_EXPOSE_TO_CONTAINER = "docker run --gpus all ...  (the host needs the NVIDIA Container Toolkit)"
_ANOTHER_MACHINE = "Train on the CPU, or on a machine with an NVIDIA GPU."

# CUresult values of cuda.h.
_NO_DEVICE = 100
_DRIVER_MISMATCH = 803
_TOO_OLD_FOR_LIBCUDA = 804

# nvmlReturn_t values of nvml.h.
_NVML_NOT_LOADED = 9
_NVML_MISMATCH = 18


def diagnose(facts: Facts, devices: Sequence[Device] = ()) -> Diagnosis | None:
    """The likely reason why no GPU computes correctly; None if one does.

    The first rule that applies decides. Their order: TensorFlow itself, the system, the hardware, the driver,
    hidden GPUs, the libraries, the arithmetic.
    """
    if any(device.right for device in devices):
        return None
    rules = (_no_arithmetic,) if devices else _RULES
    diagnoses = (rule(facts, devices) for rule in rules)
    return next((diagnosis for diagnosis in diagnoses if diagnosis), _unknown(facts))


def _no_tensorflow(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    error = facts.tensorflow.import_error
    if not error:
        return None
    return Diagnosis("no_tensorflow", f"TensorFlow cannot be imported: {error}", _INSTALL_CUDA)


def _wrong_system(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    machine = facts.machine
    if machine.system == "Darwin":
        return Diagnosis("apple", "TensorFlow trains on NVIDIA GPUs only; this is a Mac.", _ANOTHER_MACHINE)
    if machine.system == "Windows":
        reason = "TensorFlow for Windows uses no GPU; TensorFlow for Linux does, inside WSL."
        return Diagnosis("windows", reason, "wsl --install  (then install Model Trainer inside it)")
    return None


def _no_hardware(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    machine = facts.machine
    driver = facts.driver
    # Inside WSL and some containers the PCI devices are hidden, but a driver that answers proves that there is a GPU.
    if machine.pci_gpus is None or "NVIDIA" in machine.pci_gpus or machine.wsl or driver.version or driver.smi_gpus:
        return None
    if "AMD" in machine.pci_gpus:
        return Diagnosis("amd", "This machine has an AMD GPU; this TensorFlow uses NVIDIA GPUs only.", _ANOTHER_MACHINE)
    return Diagnosis("no_gpu", "This machine has no NVIDIA GPU among its PCI devices.", _ANOTHER_MACHINE)


def _no_driver(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    machine = facts.machine
    driver = facts.driver
    if not driver.libcuda_error:
        return None
    if machine.container and (driver.version or "NVIDIA" in (machine.pci_gpus or ())):
        reason = "There is an NVIDIA GPU, but this container was started without it."
        return Diagnosis("container", reason, _EXPOSE_TO_CONTAINER)
    if driver.version:
        reason = f"NVIDIA driver {driver.version} runs, but its library does not load: {driver.libcuda_error}."
        return Diagnosis("no_libcuda", reason, driver_command(machine))
    has_gpu = "NVIDIA" in (machine.pci_gpus or ())
    reason = "There is an NVIDIA GPU, but no NVIDIA driver." if has_gpu else "No NVIDIA driver was found."
    return Diagnosis("no_driver", reason, driver_command(machine))


def _mismatch(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    driver = facts.driver
    if driver.init_code != _DRIVER_MISMATCH and driver.nvml_code != _NVML_MISMATCH:
        return None
    reason = "The NVIDIA driver was updated, and the old one still runs until the machine restarts."
    return Diagnosis("driver_mismatch", reason, "sudo reboot")


def _old_driver(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    driver = facts.driver
    cuda = facts.tensorflow.built_cuda
    if driver.init_code == _TOO_OLD_FOR_LIBCUDA:
        reason = f"NVIDIA driver {driver.version} is older than the libcuda.so.1 that was loaded."
        return Diagnosis("old_driver", reason, driver_command(facts.machine))
    if not is_too_old(driver.version, cuda):
        return None
    reason = f"NVIDIA driver {driver.version} is too old: CUDA {cuda} needs {oldest_driver(cuda)} or later."
    return Diagnosis("old_driver", reason, driver_command(facts.machine))


def _closed_files(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    closed = facts.machine.closed_device_files
    if not closed:
        return None
    reason = f"This user may not open {', '.join(closed)}."
    return Diagnosis("permission", reason, "sudo usermod -aG video,render $USER  (then log out and in again)")


def _hidden(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    visible = facts.machine.visible_devices
    driver = facts.driver
    if visible is None or driver.gpus or driver.init_code not in (0, _NO_DEVICE):
        return None
    # A cluster sets it to the GPUs of a job, which hides none; NVML lists GPUs if it really hides them.
    if not driver.smi_gpus and visible not in ("", "-1"):
        return None
    reason = f"The environment variable CUDA_VISIBLE_DEVICES={visible!r} hides the GPUs."
    return Diagnosis("hidden", reason, "unset CUDA_VISIBLE_DEVICES")


def _driver_fails(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    driver = facts.driver
    unloaded = driver.nvml_code == _NVML_NOT_LOADED and not driver.version
    if facts.machine.container and not facts.machine.device_files and (unloaded or driver.init_code == _NO_DEVICE):
        reason = "The driver is installed, but this container has no GPU."
        return Diagnosis("container", reason, _EXPOSE_TO_CONTAINER)
    if unloaded:
        reason = "The NVIDIA driver is installed, but its kernel module is not loaded."
        cure = "sudo modprobe nvidia  (if it fails, the driver was built for another kernel)"
        return Diagnosis("not_loaded", reason, cure)
    if driver.init_code == _NO_DEVICE:
        reason = f"The NVIDIA driver runs but finds no GPU{f' ({driver.smi_error})' if driver.smi_error else ''}."
        return Diagnosis("no_device", reason, "nvidia-smi  (lists the GPUs that the driver sees)")
    if driver.init_code not in (0, None):
        # Common after a laptop was suspended, with code 999.
        reason = f"The NVIDIA driver does not start: cuInit returned {driver.init_code}."
        return Diagnosis("driver_fails", reason, "sudo reboot")
    return None


def _cpu_build(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    if facts.tensorflow.with_cuda:
        return None
    if facts.machine.architecture in ("aarch64", "arm64"):
        reason = "TensorFlow from pip is built without CUDA for ARM processors."
        return Diagnosis("cpu_build", reason, "Use NVIDIA's container image of TensorFlow on this machine.")
    cure = "pip uninstall -y tensorflow-cpu tensorflow && " + _INSTALL_CUDA
    return Diagnosis("cpu_build", "This TensorFlow is built without CUDA.", cure)


def _missing_libraries(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    needed = [library for library in facts.libraries if library.needed]
    missing = [library for library in needed if not library.loaded]
    if not missing:
        return None
    if len(missing) == len(needed):
        return Diagnosis("no_cuda", "TensorFlow was installed without its CUDA libraries.", _INSTALL_CUDA)
    absent = all("No such file" in library.error for library in missing)
    packages = " ".join(sorted({library.package for library in missing}))
    cure = _INSTALL_CUDA if absent else f"pip install --force-reinstall --no-deps {packages}"
    return Diagnosis("library", f"CUDA libraries do not load: {_with_errors(missing)}.", cure)


def _not_found_by_tensorflow(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    """A library loads here, but TensorFlow searches other folders."""
    paths = {library.name: library.path for library in facts.libraries if library.loaded}
    refused = [name for name, _ in facts.tensorflow.refused if name in paths]
    if not refused:
        return None
    folders = ":".join(sorted({paths[name].rpartition("/")[0] for name in refused} - {""}))
    reason = f"TensorFlow does not find {', '.join(refused)}, which is on this machine."
    return Diagnosis("library_path", reason, f'export LD_LIBRARY_PATH="{folders}:$LD_LIBRARY_PATH"')


def _old_gpu(facts: Facts, _: Sequence[Device]) -> Diagnosis | None:
    oldest = _oldest_capability(facts.tensorflow.built_capabilities)
    gpus = facts.driver.gpus
    if not gpus or any(gpu.compute_capability >= oldest for gpu in gpus):
        return None
    capabilities = ", ".join(f"{gpu.name} has {_dotted(gpu.compute_capability)}" for gpu in gpus)
    reason = f"This TensorFlow needs a GPU of compute capability {_dotted(oldest)} or later; {capabilities}."
    return Diagnosis("old_gpu", reason, _ANOTHER_MACHINE)


def _no_arithmetic(facts: Facts, devices: Sequence[Device]) -> Diagnosis:
    """There are GPUs, but none computes correctly."""
    messages = [device.failure for device in devices] + [check.note for device in devices for check in device.checks]
    text = " ".join(filter(None, messages))
    if re.search(r"ResourceExhausted|OOM|out of memory|OUT_OF_MEMORY|failed to allocate", text, re.IGNORECASE):
        reason = "Other programs fill the GPU's memory."
        return Diagnosis("memory", reason, "nvidia-smi  (lists them; end those that you do not need)")
    if re.search(r"cudnn|DNN library|no algorithm worked", text, re.IGNORECASE):
        cure = "pip install --force-reinstall --no-deps nvidia-cudnn-cu12"
        return Diagnosis("cudnn", "cuDNN does not work on this GPU; its version may not fit.", cure)
    if re.search(r"no kernel image|INVALID_PTX|UNSUPPORTED_PTX|unsupported toolchain", text, re.IGNORECASE):
        reason = "This TensorFlow has no code for this GPU, or the driver is too old to compile it."
        return Diagnosis("no_kernel", reason, driver_command(facts.machine))
    if any(check.status == "wrong" for device in devices for check in device.checks):
        reason = "The GPU computes wrong numbers: the driver, the memory or the card is faulty."
        return Diagnosis("wrong", reason, "sudo reboot  (if it persists, update the driver, then replace the card)")
    return Diagnosis("fails", f"The GPU was found but does not compute: {text[:200]}", "sudo reboot")


def _unknown(facts: Facts) -> Diagnosis:
    lines = facts.tensorflow.log.strip().splitlines()
    last = f" TensorFlow's last message: {lines[-1]}" if lines else ""
    return Diagnosis(
        "unknown",
        f"TensorFlow registers no GPU although the driver and the libraries are in order.{last}",
        "TF_CPP_MIN_LOG_LEVEL=0 model-trainer gpu  (shows TensorFlow's own log)",
    )


_RULES = (
    _no_tensorflow,
    _wrong_system,
    _no_hardware,
    _no_driver,
    _mismatch,
    _old_driver,
    _closed_files,
    _hidden,
    _driver_fails,
    _cpu_build,
    _missing_libraries,
    _not_found_by_tensorflow,
    _old_gpu,
)


def _with_errors(libraries: Sequence[Library]) -> str:
    return "; ".join(f"{library.name} ({library.error.removeprefix(library.name + ': ')})" for library in libraries)


def _oldest_capability(built: Sequence[str]) -> tuple[int, int]:
    """The lowest of them: (6, 0) for ("sm_60", "compute_90"); (0, 0) if there are none."""
    numbers = [match[1] for name in built if (match := re.search(r"_(\d+)", name))]
    return min(((int(number[:-1]), int(number[-1])) for number in numbers), default=(0, 0))


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
