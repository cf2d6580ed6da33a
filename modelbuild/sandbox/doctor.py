"""What this machine can do, and how to get what it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.sandbox.gpus import Gpu, other_programs
from modelbuild.sandbox.lease import holder_of
from modelbuild.sandbox.machine import Machine, cpu_level, this_machine
from modelbuild.sandbox.namespaces import CHOOSE_NONE, check_namespaces, required_bwrap
from modelbuild.sandbox.shipped_runtime import WITHOUT_PRELOAD, preload_library
from modelbuild.spec.recipe import Hardware

GIB = 1 << 30
LITTLE_SPACE_BYTES = 10 * GIB
"""An environment with torch takes 1.2 GB, one for CUDA 6 GB."""
ADDR_NO_RANDOMIZE = 0x0040000
READ_PERSONALITY = 0xFFFFFFFF
FICLONE = 0x40049409
"""Linux's request to share a file's blocks with another, from linux/fs.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    """False: something in modelbuild can't be had without it."""
    found: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)


def examine(store: Path) -> Report:
    """Try everything that a build needs. `store` is its folder; it need not exist yet."""
    machine = this_machine(with_gpus=True)
    checks: list[Callable[[], Finding]] = [lambda: _system(machine)]
    if sys.platform == "linux":
        checks += [_bubblewrap, _namespaces, _randomisation, _preload, _file_systems]
    checks += [lambda: _store(store), _uv, lambda: _processors(machine), _memory]
    checks += [lambda: _gpus(machine)]
    return Report(findings=tuple(check() for check in checks))


def _system(machine: Machine) -> Finding:
    found = f"{machine.system} {machine.kernel} on {machine.architecture}"
    ok = machine.system == "Linux" and machine.architecture == "x86_64"
    remedy = "Stages run on Linux x86-64 only. Here: modelbuild lock, modelbuild verify"
    return Finding(name="system", ok=ok, found=found, remedy=None if ok else remedy)


def _bubblewrap() -> Finding:
    try:
        path = required_bwrap()
    except ModelbuildError as error:
        return _refused("bubblewrap", error)
    return Finding(name="bubblewrap", ok=True, found=f"{_output(path, '--version')} at {path}")


def _namespaces() -> Finding:
    try:
        check_namespaces(required_bwrap())
    except ModelbuildError as error:
        return _refused("namespaces", error)
    return Finding(name="namespaces", ok=True, found="user, mount, PID, network, IPC and UTS: made")


def _refused(name: str, error: ModelbuildError) -> Finding:
    found = "; ".join(f"{label}: {value}" for label, value in error.facts)
    return Finding(name=name, ok=False, found=found, remedy=error.hint)


def _randomisation() -> Finding:
    """Tried on this thread, and taken back. Where it is refused, stages run with it on."""
    import ctypes

    personality = ctypes.CDLL(None).personality
    before = personality(READ_PERSONALITY)
    granted = personality(before | ADDR_NO_RANDOMIZE) >= 0
    personality(before)
    if granted:
        return Finding(name="address randomisation", ok=True, found="can be turned off")
    return Finding(
        name="address randomisation",
        ok=True,
        found="stays on: a filter of system calls refuses to turn it off",
        remedy="Start the container with: --security-opt seccomp=unconfined",
    )


def _preload() -> Finding:
    """Tried on a program: the loader says so where it can't take the library."""
    library = preload_library()
    if not library.exists():
        return Finding(
            name="preload library",
            ok=True,
            found=f"not there: {WITHOUT_PRELOAD}",
            remedy="Install a C compiler, then modelbuild again: it is built with the package",
        )
    tried = subprocess.run(
        ["/usr/bin/true"], env={"LD_PRELOAD": str(library)}, capture_output=True, check=False
    )
    if said := tried.stderr.decode(errors="replace").strip():
        remedy = "Install modelbuild again, on this machine"
        return Finding(name="preload library", ok=False, found=said, remedy=remedy)
    return Finding(name="preload library", ok=True, found="can be loaded")


def _file_systems() -> Finding:
    known = Path("/proc/filesystems").read_text().split()
    found = [name for name in ("tmpfs", "overlay") if name in known]
    return Finding(
        name="file systems",
        ok="tmpfs" in found,
        found=", ".join(found) or "neither tmpfs nor overlay",
        remedy=None if "tmpfs" in found else CHOOSE_NONE,
    )


def _store(store: Path) -> Finding:
    folder = next(path for path in (store, *store.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    try:
        abilities = list(_link_abilities(folder))
    except OSError as error:
        return Finding(
            name="store",
            ok=False,
            found=f"{store}: {error.strerror}",
            remedy="Choose another folder: MODELBUILD_STORE=/path/to/folder",
        )
    roomy = free >= LITTLE_SPACE_BYTES
    return Finding(
        name="store",
        ok=True,
        found=f"{store}: {free / GIB:.0f} GiB free, {', '.join(abilities)}",
        remedy=None if roomy else "Little space is left: MODELBUILD_STORE names another folder",
    )


def _link_abilities(folder: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix=".modelbuild-doctor-", dir=folder) as name:
        file = Path(name, "file")
        file.write_bytes(b"0" * 4096)
        try:
            Path(name, "link").hardlink_to(file)
            yield "hard links"
        except OSError:
            yield "no hard links: environments take their whole size"
        yield "reflinks" if _reflinks(file, Path(name, "copy")) else "no reflinks"


def _reflinks(file: Path, copy: Path) -> bool:
    import fcntl

    with file.open("rb") as source, copy.open("wb") as target:
        try:
            fcntl.ioctl(target, FICLONE, source.fileno())
        except OSError:
            return False
    return True


def _uv() -> Finding:
    from uv import find_uv_bin

    try:
        path = find_uv_bin()
    except FileNotFoundError:
        return Finding(name="uv", ok=False, found="none", remedy="pip install uv")
    return Finding(name="uv", ok=True, found=f"{_output(Path(path), '--version')} at {path}")


def _processors(machine: Machine) -> Finding:
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    found = f"{allowed} of {os.cpu_count()}"
    if not machine.flags:
        return Finding(name="processors", ok=True, found=f"{found}, instruction set not known")
    level = cpu_level(machine.flags)
    ok = level is not None and level >= Hardware().cpu
    able = level or "native"
    return Finding(
        name="processors",
        ok=ok,
        found=f"{found}, {level or 'older than x86-64-v2'}",
        remedy=None if ok else f'Only recipes with [hardware] cpu = "{able}" can be built here',
    )


def _memory() -> Finding:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = f"{memory / GIB:.1f} GiB: at most a quarter for a stage's /tmp, half for /dev/shm"
    return Finding(name="memory", ok=True, found=found)


def _gpus(machine: Machine) -> Finding:
    if not machine.gpus:
        why_none = "nvidia-smi lists none" if shutil.which("nvidia-smi") else "no nvidia-smi"
        return Finding(name="GPUs", ok=True, found=f"none ({why_none})")
    users = other_programs(machine.gpus)
    lacking = [gpu for gpu in machine.gpus if not os.access(gpu.device, os.R_OK | os.W_OK)]
    return Finding(
        name="GPUs",
        ok=not lacking,
        found="\n".join([*map(_gpu, machine.gpus), *(f"in use: {each}" for each in users)]),
        remedy=f"No device file that can be opened: {', '.join(map(str, lacking))}"
        if lacking
        else None,
    )


def _gpu(gpu: Gpu) -> str:
    holder = holder_of(gpu)
    place = f"{gpu.device or 'no device file'}, {f'leased by {holder}' if holder else 'free'}"
    return f"{gpu}, {gpu.memory_bytes / GIB:.1f} GiB, driver {gpu.driver}, {place}"


def _output(program: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    return (done.stdout or done.stderr).strip()
