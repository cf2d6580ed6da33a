"""What this machine is: whether it can honour a recipe's hardware, and its numeric class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.gpus import Gpu, fitting_gpus, read_gpus
from modelbuild.sandbox.shipped_runtime import preload_library
from modelbuild.spec.digest import Digest
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.spec.recipe import Device, Hardware, Recipe

UNKNOWN = "unknown"
ABSENT = "absent"

_V2 = ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
"""Flags of /proc/cpuinfo that each level of the x86-64 psABI asks for."""

_NUMERIC_FLAG = re.compile(r"avx.*|amx_.*|fma4?|f16c|sse4_.|ssse3")
"""Flags by which numeric libraries choose a path."""

_LIBRARY_FOLDERS = (
    *("/lib64", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/x86_64-linux-gnu"),
    *("/lib", "/usr/lib"),
)
_LIBRARIES = {
    "loader": "ld-linux-x86-64.so.2",
    "libc": "libc.so.6",
    "libm": "libm.so.6",
    "libstdc++": "libstdc++.so.6",
}
_MORE_LIBRARIES = {
    "libgcc_s": "libgcc_s.so.1",
    "libgomp": "libgomp.so.1",
    "libmvec": "libmvec.so.1",
}
"""Not on every system; wheels that need them mostly bring their own."""
_COMPILERS = ("cc", "gcc", "g++", "clang")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Facts as the system states them, so far as they decide what can run here."""

    system: str
    """`Linux`, `Darwin`, ..."""
    architecture: str
    kernel: str
    """Its release, such as `6.1.0-18-amd64`."""
    glibc: tuple[int, int] | None
    vendor: str = UNKNOWN
    model: str = UNKNOWN
    """Family, model number and name of the CPU."""
    flags: frozenset[str] = frozenset()
    caches: str = UNKNOWN
    gpus: tuple[Gpu, ...] = field(default=())


def this_machine(*, with_gpus: bool = False) -> Machine:
    """GPUs are asked for only where wanted: the answer takes longer than everything else."""
    system = os.uname()
    cpu = _read_cpu()
    return Machine(
        system=system.sysname,
        architecture=system.machine,
        kernel=system.release,
        glibc=_read_glibc(),
        vendor=cpu.get("vendor_id", UNKNOWN),
        model=_describe_model(cpu),
        flags=frozenset(cpu.get("flags", "").split()),
        caches=_read_caches(),
        gpus=read_gpus() if with_gpus else (),
    )


def _read_cpu() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor."""
    facts = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, found, value = line.partition(":")
                if not found:
                    break
                facts[name.strip()] = value.strip()
    except OSError:
        return {}
    return facts


def _describe_model(cpu: Mapping[str, str]) -> str:
    if "model name" not in cpu:
        return UNKNOWN
    return f"family {cpu.get('cpu family')} model {cpu.get('model')}: {cpu['model name']}"


def _read_glibc() -> tuple[int, int] | None:
    try:
        found = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (OSError, ValueError):
        return None
    return (int(found[1]), int(found[2])) if found else None


def _read_caches() -> str:
    """Such as `L1d 48K, L1i 32K, L2 2048K, L3 32768K`."""
    letters = {"Data": "d", "Instruction": "i"}
    found = []
    try:
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            found.append(f"L{level}{letters.get(kind, '')} {size}")
    except OSError:
        return UNKNOWN
    return ", ".join(sorted(found)) or UNKNOWN


def read_numeric_class(
    hardware: Hardware, interpreter: Digest, machine: Machine | None = None
) -> NumericClass:
    """The class of this machine for a recipe's hardware; `interpreter` is its tree's digest."""
    machine = machine or this_machine(with_gpus=hardware.device is Device.CUDA)
    facts = {
        "cpu-vendor": machine.vendor,
        "cpu-model": machine.model,
        "caches": machine.caches,
        "instructions": _instructions(hardware.cpu, machine.flags),
        "kernel": ".".join(re.findall(r"\d+", machine.kernel)[:2]),
        "interpreter": interpreter.short,
        # By presence: its source is in the derivation, and a compiler can't change what it answers.
        "preload": "present" if preload_library().exists() else ABSENT,
    }
    facts |= {name: _digest(_library(file)) for name, file in _LIBRARIES.items()}
    more = {name: _digest(_library(file)) for name, file in _MORE_LIBRARIES.items()}
    more |= {name: _digest(Path("/usr/bin", name)) for name in _COMPILERS}
    facts |= {name: digest for name, digest in more.items() if digest != ABSENT}
    if hardware.device is Device.CUDA:
        chosen = fitting_gpus(hardware, machine.gpus)[: hardware.gpus]
        facts["gpus"] = ", ".join(gpu.name for gpu in chosen) or ABSENT
        facts["driver"] = ", ".join(sorted({gpu.driver for gpu in chosen})) or ABSENT
    return NumericClass(facts)


def _instructions(cap: str, flags: Iterable[str]) -> str:
    """The recipe's cap, or where it sets none, all that libraries may use."""
    if cap != "native":
        return cap
    return " ".join(sorted(flag for flag in flags if _NUMERIC_FLAG.fullmatch(flag))) or UNKNOWN


def _library(name: str) -> Path:
    """Where the loader finds it first."""
    paths = [Path(folder, name) for folder in _LIBRARY_FOLDERS]
    return next((path for path in paths if path.exists()), paths[0])


def _digest(path: Path) -> str:
    try:
        return Digest.of(path.read_bytes()).short
    except FileNotFoundError:
        return ABSENT
    except OSError:
        return UNKNOWN


def check_hardware(recipe: Recipe, machine: Machine | None = None) -> None:
    """Raise UnavailableError where this machine can't honour `[hardware]` or the platform.

    Fewer processors than the recipe has threads or processes is no reason: it is only slower.
    """
    cuda = recipe.hardware.device is Device.CUDA
    machine = machine or this_machine(with_gpus=cuda)
    _check_platform(recipe, machine)
    _check_cpu(recipe, machine)
    if cuda:
        _check_gpus(recipe, machine)


def _check_platform(recipe: Recipe, machine: Machine) -> None:
    platform = recipe.environment.platform
    architecture, _, libc = platform.partition("-")
    wanted = re.fullmatch(r"manylinux_(\d+)_(\d+)", libc)
    here = f"{machine.system} on {machine.architecture}"
    if machine.glibc:
        here += f" with glibc {machine.glibc[0]}.{machine.glibc[1]}"
    fits = machine.system == "Linux" and machine.architecture == architecture
    if wanted:
        oldest = (int(wanted[1]), int(wanted[2]))
        fits = fits and machine.glibc is not None and machine.glibc >= oldest
    if not fits:
        raise UnavailableError(
            f"{recipe.where('environment.platform')}: recipe '{recipe.name}' is for a platform"
            " that this machine is not",
            facts=[("wanted", platform), ("found", here)],
            hint="Build it on such a machine. Locking and `modelbuild verify` without --rebuild"
            " work here.",
        )


def _check_cpu(recipe: Recipe, machine: Machine) -> None:
    wanted = recipe.hardware.cpu
    missing = [flag for flag in LEVELS.get(wanted, ()) if flag not in machine.flags]
    if not missing:
        return
    hint = "Build it on a newer machine"
    if able := cpu_level(machine.flags):
        hint += f', or declare another in the recipe, with other bits: cpu = "{able}"'
    raise UnavailableError(
        f"{recipe.where('hardware.cpu')}: this CPU lacks instructions that recipe"
        f" '{recipe.name}' is pinned to",
        facts=[("wanted", wanted), ("found", f"{machine.model} without {' '.join(missing)}")],
        hint=hint + ".",
    )


def cpu_level(flags: frozenset[str]) -> str | None:
    """The highest level whose instructions are all there."""
    able = [level for level, needed in LEVELS.items() if flags.issuperset(needed)]
    return able[-1] if able else None


def _check_gpus(recipe: Recipe, machine: Machine) -> None:
    hardware = recipe.hardware
    if len(fitting_gpus(hardware, machine.gpus)) >= hardware.gpus:
        return
    key, wanted = "hardware.gpus", f"{hardware.gpus} {'GPU' if hardware.gpus == 1 else 'GPUs'}"
    if hardware.gpu is not None:
        key, wanted = "hardware.gpu", f"{wanted} named {hardware.gpu}"
    if hardware.gpu_memory_bytes is not None:
        wanted += f" of at least {_gibibytes(hardware.gpu_memory_bytes)}"
    found = "\n".join(f"{gpu.name}, {_gibibytes(gpu.memory_bytes)}" for gpu in machine.gpus)
    raise UnavailableError(
        f"{recipe.where(key)}: this machine lacks the GPUs of recipe '{recipe.name}'",
        facts=[("wanted", wanted), ("found", found or "none that nvidia-smi lists")],
        hint="Build it on a machine that has them.",
    )


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
