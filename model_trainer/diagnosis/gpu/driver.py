"""NVIDIA's driver: the version that CUDA needs, and the command that installs it."""

from __future__ import annotations

from model_trainer.diagnosis.gpu.facts import Machine

__all__ = ["driver_command", "is_too_old", "oldest_driver"]

# The oldest driver for each CUDA, on Linux.
# Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
_OLDEST_DRIVER = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}

_INSTALL = {
    "ubuntu": "sudo ubuntu-drivers install && sudo reboot",
    "debian": "sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot"
    "  (with `contrib non-free non-free-firmware` in the APT sources)",
    "fedora": "sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda && sudo reboot"
    "  (with RPM Fusion's non-free repository)",
    "arch": "sudo pacman -S nvidia-open nvidia-utils && sudo reboot",
}
_INSTALL_ANYWHERE = "Install the driver from https://www.nvidia.com/drivers, then restart the machine."


def oldest_driver(cuda: str) -> str:
    """The oldest driver that runs CUDA `cuda`, such as "12.5.1"; empty if unknown."""
    return _OLDEST_DRIVER.get(cuda.partition(".")[0], "")


def is_too_old(driver: str, cuda: str) -> bool:
    """Whether the driver's version, such as "470.82.01", is too old for CUDA `cuda`; False if unknown."""
    oldest = oldest_driver(cuda)
    return bool(driver and oldest) and _numbers(driver) < _numbers(oldest)


def driver_command(machine: Machine) -> str:
    """The command that installs or updates the driver on this machine."""
    if machine.wsl:
        return "On Windows: install the driver from https://www.nvidia.com/drivers, then run: wsl --update"
    return next((_INSTALL[name] for name in machine.distribution if name in _INSTALL), _INSTALL_ANYWHERE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".") if number.isdigit())
