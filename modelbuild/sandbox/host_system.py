"""What a sandbox with `base = "host"` shows of the host's system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelbuild.sandbox.gpus import Gpu

SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
LIBRARY_FOLDERS = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
)
GPU_LIBRARIES = (
    *("libcuda.", "libcudadebugger.", "libcudart.", "libcublas", "libcudnn", "libcufft"),
    *("libcupti", "libcurand", "libcusolver", "libcusparse", "libnccl", "libnpp", "libnvToolsExt"),
    *("libnvcuvid", "libnvidia-", "libnvjpeg", "libnvoptix", "libnvrtc", "libnvJitLink"),
    *("libamdhip64", "libhsa-runtime64", "libhip", "librocblas", "librocm", "libze_"),
)
KERNEL_SETTINGS = ("/proc/sys", "/proc/fs", "/proc/sysrq-trigger")
GPU_FOLDERS = ("cuda", "nvidia", "rocm", "wsl")
DRIVER_DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps")
DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib")
"""Where clusters and WSL put the driver's libraries for containers and guests."""


def system(gpus: Sequence[Gpu], *, whole: bool = False) -> list[str]:
    """bubblewrap's arguments for the host's programs and libraries, read-only.

    `/usr/local` is hidden: what an administrator installed there is nobody else's. So are GPU
    libraries, where there is no GPU. With `whole`, both are there: what is installed into a
    system, as in a vendor's image, is linked to them.
    """
    arguments = ["--ro-bind", "/usr", "/usr"]
    if not whole and os.path.isdir("/usr/local") and not os.path.islink("/usr/local"):
        arguments += _local(driver_folder() if gpus else None)
    for name in SYSTEM_LINKS:
        path = f"/{name}"
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    # Compilers and shells are links through here on Debian.
    for path in ("/etc/alternatives", *_kernel_files()):
        arguments += ["--ro-bind-try", path, path]
    if whole or gpus:
        arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if gpus:
        return arguments + _driver(gpus)
    return arguments if whole else [*arguments, *hidden_gpu_libraries(LIBRARY_FOLDERS)]


def _kernel_files() -> list[str]:
    """What must be read-only in /proc, where processes can write to their own files.

    These files are the same in every /proc. Root still owns them inside, without any capability:
    it could turn off GPUs, or change a file's mode for the whole machine.
    """
    with os.scandir("/proc") as entries:
        owned = [
            entry.path
            for entry in entries
            if not (entry.name.isdigit() or entry.is_symlink())
            and entry.stat().st_uid == os.geteuid()
        ]
    return sorted({*KERNEL_SETTINGS, *owned})


def hidden_gpu_libraries(folders: Sequence[str]) -> Iterator[str]:
    """bubblewrap's arguments that leave CUDA's and ROCm's libraries unreadable or empty.

    Links are left alone: what they lead to is hidden, or is not there.
    """
    for folder in folders:
        if os.path.islink(folder) or not os.path.isdir(folder):
            continue
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.is_symlink()), key=lambda e: e.name)
        for entry in found:
            if entry.name.startswith(GPU_LIBRARIES) and entry.is_file():
                yield from ("--ro-bind", "/dev/null", entry.path)
            elif entry.name.startswith(GPU_FOLDERS) and entry.is_dir():
                yield from _emptied(entry.path)


def _local(kept: str | None) -> list[str]:
    """Nothing of `/usr/local` but one folder, if that is in it."""
    if kept is None or not kept.startswith("/usr/local/"):
        return _emptied("/usr/local")
    return ["--tmpfs", "/usr/local", "--ro-bind", kept, kept, "--remount-ro", "/usr/local"]


def _emptied(folder: str) -> list[str]:
    return ["--tmpfs", folder, "--remount-ro", folder]


def _driver(gpus: Sequence[Gpu]) -> list[str]:
    """The devices of the declared GPUs, and what the driver's libraries read."""
    arguments = []
    for device in driver_devices(gpus):
        arguments += ["--dev-bind-try", device, device]
    buses = sorted(str(path) for path in Path("/sys/devices").glob("pci*"))
    for path in ("/sys/bus/pci", "/sys/class/pci_bus", "/sys/module/nvidia", *buses):
        arguments += ["--ro-bind-try", path, path]
    return arguments


def driver_devices(gpus: Sequence[Gpu]) -> list[str]:
    """Those of the driver itself and those of the declared GPUs; not all need be there."""
    if not gpus:
        return []
    own = dict.fromkeys(gpu.device for gpu in gpus if gpu.device)
    return [*(f"/dev/{name}" for name in DRIVER_DEVICES), *own]


def driver_folder(root: Path = Path("/")) -> str | None:
    """Where the driver's libraries are, if the loader does not look there of itself."""

    def holds_driver(folder: str) -> bool:
        return (root / folder.lstrip("/") / "libcuda.so.1").exists()

    if any(map(holds_driver, LIBRARY_FOLDERS)):
        return None
    return next(filter(holds_driver, DRIVER_FOLDERS), None)


def driver_variables(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What a stage with GPUs must be told so that it finds the driver's libraries."""
    folder = driver_folder() if gpus else None
    return {"LD_LIBRARY_PATH": folder} if folder else {}
