"""The GPUs of this machine: what the driver says of them, which fit a recipe, who uses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from modelbuild.spec.recipe import Hardware

MIB = 2**20
UNSEEN_BYTES = 2**30
"""What the driver itself keeps is less; more than this is somebody's, listed or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    name: str
    memory_bytes: int
    driver: str
    index: int = 0
    """Its number in the order of the PCI bus, in which `nvidia-smi` counts."""
    uuid: str = ""
    device: str = ""
    """The path of its device file; empty where it has none that is known."""

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


def read_gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; nothing where it is missing or fails."""
    listed = _query("--query-gpu=index,uuid,pci.bus_id,name,memory.total,driver_version")
    places = [line.split(",")[2].strip() for line in listed.splitlines()]
    return parse_gpus(listed, device_files(places))


def parse_gpus(listed: str, devices: Sequence[str]) -> tuple[Gpu, ...]:
    """Lines such as `0, GPU-9a.., 00000000:17:00.0, NVIDIA H100 80GB HBM3, 81559, 550.54.15`.

    Memory is in MiB. `devices` are the device files, in the same order.
    """
    gpus = []
    for line, device in zip(listed.splitlines(), devices, strict=True):
        index, uuid, _, rest = (part.strip() for part in line.split(",", 3))
        name, memory, driver = (part.strip() for part in rest.rsplit(",", 2))
        gpus.append(
            Gpu(
                name=name,
                memory_bytes=int(memory) * MIB if memory.isdigit() else 0,
                driver=driver,
                index=int(index),
                uuid=uuid,
                device=device,
            )
        )
    return tuple(gpus)


def device_files(places: Sequence[str], root: Path = Path("/")) -> list[str]:
    """The device files of GPUs by their places on the PCI bus, such as `00000000:17:00.0`.

    1. The driver tells the number of each: it need not be the place in the order of the bus.
    2. A container may hide that, and show only its own GPUs' files: those, in their order.
    3. Under WSL there is one file for all.
    """
    minors = [_minor(root / "proc/driver/nvidia/gpus", place) for place in places]
    if all(minor is not None for minor in minors):
        return [f"/dev/nvidia{minor}" for minor in minors]
    numbers = sorted(
        int(path.name.removeprefix("nvidia"))
        for path in (root / "dev").glob("nvidia*")
        if re.fullmatch(r"nvidia\d+", path.name)
    )
    if len(numbers) == len(places):
        return [f"/dev/nvidia{number}" for number in numbers]
    common = "/dev/dxg" if (root / "dev/dxg").exists() else ""
    return [common] * len(places)


def _minor(folder: Path, place: str) -> int | None:
    """nvidia-smi writes the domain with eight digits, the driver's folders with four."""
    domain, _, rest = place.lower().partition(":")
    try:
        text = (folder / f"{int(domain, 16):04x}:{rest}" / "information").read_text()
    except (OSError, ValueError):
        return None
    found = re.search(r"^Device Minor:\s*(\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None


def fitting_gpus(hardware: Hardware, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those of which a stage may get any `hardware.gpus`, in the order of the PCI bus.

    Where GPUs of several kinds fit, those of the first kind of which there are enough: which are
    free may not decide on the numeric class. Of no kind enough: the first that fit, and no others.
    """
    fitting = [
        gpu
        for gpu in gpus
        if fnmatchcase(gpu.name, hardware.gpu or "*")
        and gpu.memory_bytes >= (hardware.gpu_memory_bytes or 0)
    ]
    for name in dict.fromkeys(gpu.name for gpu in fitting):
        alike = [gpu for gpu in fitting if gpu.name == name]
        if len(alike) >= hardware.gpus:
            return tuple(alike)
    return tuple(fitting[: hardware.gpus])


def other_programs(gpus: Sequence[Gpu]) -> list[str]:
    """Who computes on these GPUs now, a line each: `GPU 0 (...): process 4242 (python), 3000 MiB`.

    To be asked while no stage of ours runs there. Programs in other containers are often not
    listed, but the memory that they hold is.
    """
    if not gpus:
        return []
    programs = _query("--query-compute-apps=gpu_uuid,pid,process_name,used_memory")
    memory = _query("--query-gpu=uuid,memory.used")
    return parse_programs(programs, memory, gpus)


def parse_programs(programs: str, memory: str, gpus: Sequence[Gpu]) -> list[str]:
    """Lines such as `GPU-9a.., 4242, /usr/bin/python, 3000` and `GPU-9a.., 3012`, in MiB."""
    found = []
    used = dict(_parts(line, 2) for line in memory.splitlines())
    for gpu in gpus:
        listed = [parts for line in programs.splitlines() if (parts := _parts(line, 4))]
        own = [parts for parts in listed if parts[0] == gpu.uuid]
        for _, process, name, size in own:
            amount = f", {size} MiB" if size.isdigit() else ""
            found.append(f"{gpu}: process {process} ({Path(name).name}){amount}")
        held = used.get(gpu.uuid, "")
        if not own and held.isdigit() and int(held) * MIB > UNSEEN_BYTES:
            found.append(f"{gpu}: a program that can't be seen from here, {held} MiB")
    return found


def _parts(line: str, count: int) -> list[str]:
    """The fields of a line; the one before the last may itself hold commas."""
    first = [part.strip() for part in line.split(",", count - 2)]
    return [*first[:-1], *(part.strip() for part in first[-1].rsplit(",", 1))]


def _query(query: str) -> str:
    """Empty where nvidia-smi is missing or fails."""
    import subprocess

    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
