"""The values of a GPU report: the machine, its driver, TensorFlow, and the arithmetic of each GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AllReduce",
    "Check",
    "Device",
    "Diagnosis",
    "Driver",
    "Facts",
    "GpuReport",
    "Library",
    "Machine",
    "TensorFlow",
    "Versions",
]

Status = Literal["right", "wrong", "failed"]  # failed: there is no result to compare


@dataclass(frozen=True)
class Versions:
    """Versions of the Python packages; empty for a missing package."""

    model_trainer: str = ""
    python: str = ""
    tensorflow: str = ""
    keras: str = ""


@dataclass(frozen=True)
class Machine:
    """What the operating system reports."""

    system: str = "Linux"  # as platform.system(): Linux, Darwin, Windows
    architecture: str = "x86_64"
    distribution: tuple[str, ...] = ()  # ID and ID_LIKE of /etc/os-release, such as ("pop", "ubuntu", "debian")
    container: bool = False
    wsl: bool = False  # Windows Subsystem for Linux
    pci_gpus: tuple[str, ...] | None = None  # vendors of the PCI display controllers; None when they cannot be listed
    device_files: int = 0  # /dev/nvidia0, /dev/nvidiactl...
    closed_device_files: tuple[str, ...] = ()  # the device files that this user may not open
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES; None if it is not set


@dataclass(frozen=True)
class Driver:
    """What NVIDIA's driver reports."""

    version: str = ""  # such as "550.54.15"; empty when no driver runs
    libcuda_error: str = ""  # why libcuda.so.1 did not load; empty when it did
    init_code: int | None = None  # what cuInit() returned, 0 for success; None when it could not be called
    cuda_version: str = ""  # the newest CUDA that the driver runs, such as "12.4"
    gpus: tuple[DriverGpu, ...] = ()  # those that CUDA_VISIBLE_DEVICES leaves, in CUDA's order
    nvml_code: int | None = None  # what NVML, the library behind nvidia-smi, returned: 0 for success
    smi_gpus: tuple[str, ...] = ()  # names from NVML, which ignores CUDA_VISIBLE_DEVICES
    smi_error: str = ""  # the error message of NVML; empty also if there is no NVML


@dataclass(frozen=True)
class DriverGpu:
    """One GPU as libcuda describes it."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Library:
    """One of CUDA's shared libraries, and whether it loads."""

    name: str  # such as "libcudnn.so.9"
    needed: bool  # TensorFlow uses no GPU at all without it
    package: str  # the pip package that contains it
    path: str = ""  # the file that loaded; empty when none did
    version: str = ""  # if the library can report it
    error: str = ""  # the loader's message when none did

    @property
    def loaded(self) -> bool:
        return bool(self.path)


@dataclass(frozen=True)
class TensorFlow:
    """What TensorFlow reports about itself."""

    import_error: str = ""
    with_cuda: bool = False
    built_cuda: str = ""  # such as "12.5.1"
    built_cudnn: str = ""  # such as "9"
    built_capabilities: tuple[str, ...] = ()  # such as ("sm_60", "compute_90")
    gpus: tuple[str, ...] = ()  # such as ("GPU:0", "GPU:1")
    refused: tuple[tuple[str, str], ...] = ()  # libraries that TensorFlow could not load, with the loader's messages
    log: str = ""  # the end of its C++ log


@dataclass(frozen=True)
class Facts:
    """All that is known about the machine and its software before computing."""

    versions: Versions = Versions()
    machine: Machine = Machine()
    driver: Driver = Driver()
    libraries: tuple[Library, ...] = ()
    tensorflow: TensorFlow = TensorFlow()


@dataclass(frozen=True)
class Check:
    """One operation in one precision on one device, compared with the CPU's float32."""

    operation: str
    precision: str
    status: Status
    error: float | None = None  # largest difference, as a fraction of the result's root mean square
    tolerance: float | None = None  # the largest error that counts as right
    teraflops: float | None = None  # 10**12 floating-point operations per second; None when it was not timed
    note: str = ""


@dataclass(frozen=True)
class Device:
    """One device and its checks."""

    device: str  # such as "GPU:0"
    name: str = ""
    memory_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    checks: tuple[Check, ...] = ()
    failure: str = ""  # why the checks were not completed, such as a crash

    @property
    def right(self) -> bool:
        """Whether every float32 check is right and no other is wrong.

        A mixed precision that fails with an error is allowed, since older GPUs lack bfloat16.
        """
        full = [check for check in self.checks if check.precision.startswith("float32")]
        return (
            not self.failure
            and bool(full)
            and all(check.status == "right" for check in full)
            and all(check.status != "wrong" for check in self.checks)
        )


@dataclass(frozen=True)
class AllReduce:
    """A sum over devices, with which training on several GPUs sums gradients."""

    devices: tuple[str, ...]
    status: Status
    size_bytes: int = 0  # of the tensor on each device
    seconds: float | None = None  # for one all-reduce; None when it was not timed
    note: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Why no GPU can be used, and how to fix it."""

    code: str  # a stable code for programs, such as "no_driver"
    reason: str  # a sentence
    cure: str  # a command where there is one, otherwise a sentence


@dataclass(frozen=True)
class GpuReport:
    """The results of the GPU check."""

    facts: Facts
    devices: tuple[Device, ...] = ()
    all_reduce: AllReduce | None = None
    diagnosis: Diagnosis | None = None  # None when a GPU computes correctly

    @property
    def exit_code(self) -> int:
        """0 when at least one GPU computes correctly, otherwise 1."""
        return 0 if any(device.right for device in self.devices) else 1
