"""GPUs that a stage has to itself among all builds of this machine.

A lease is an exclusive `flock` on the GPU's own device file. So there is no file of ours whose
place and rights builds would have to agree on: whoever can use a GPU can lease it, all users
do it in one place, and containers too so far as they are given the host's device files. The kernel
ends a lease with the process that holds it. Programs that are no builds of ours don't ask for one:
see `other_programs`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.gpus import Gpu, fitting_gpus, read_gpus
from modelbuild.spec.recipe import Hardware

PAUSE_SECONDS = 0.5
LINE = "nvidiactl"
"""The driver's control file, which lies beside the device files and which every build may open."""


@contextmanager
def leased_gpus(hardware: Hardware, on_wait: Callable[[str], None]) -> Iterator[tuple[Gpu, ...]]:
    """As many of the fitting GPUs as the recipe asks for, the first that are free.

    Waits until there are enough; `on_wait` hears once what for.
    """
    if not hardware.gpus:
        yield ()
        return
    with leased(fitting_gpus(hardware, read_gpus()), hardware.gpus, on_wait) as gpus:
        yield gpus


@contextmanager
def leased(
    gpus: Sequence[Gpu], count: int, on_wait: Callable[[str], None]
) -> Iterator[tuple[Gpu, ...]]:
    """Any `count` of these GPUs.

    Of the builds that wait, the one that is first in line keeps each GPU that becomes free, so that
    builds that need fewer can't pass it for ever. It waits for builds that have all they need; the
    others hold nothing. So no two builds wait for each other.
    """
    held: dict[Gpu, int] = {}
    line = None
    try:
        if not _take(gpus, count, held):
            _release(held)
            on_wait(_waited_for(gpus, count))
        while len(held) < count:
            if line is None:
                _release(held)
                line = _first_in_line(gpus)
            time.sleep(PAUSE_SECONDS)
            _take(gpus, count, held)
        _close(line)
        line = None
        yield tuple(held)
    finally:
        _close(line)
        _release(held)


def _take(gpus: Sequence[Gpu], count: int, held: dict[Gpu, int]) -> bool:
    """Add what is free to the descriptors that hold the leases; whether there are enough."""
    for gpu in gpus:
        if len(held) == count:
            break
        if gpu in held:
            continue
        shared = next((held[each] for each in held if each.device == gpu.device), None)
        descriptor = _lock(gpu) if shared is None else os.dup(shared)
        if descriptor is not None:
            held[gpu] = descriptor
    return len(held) == count


def _first_in_line(gpus: Sequence[Gpu]) -> int | None:
    """The descriptor that holds the place; None where another build has it, or no such file is."""
    try:
        return _locked(os.path.join(os.path.dirname(gpus[0].device), LINE))
    except OSError:
        return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _release(held: dict[Gpu, int]) -> None:
    while held:
        os.close(held.popitem()[1])


def _lock(gpu: Gpu) -> int | None:
    try:
        return _locked(gpu.device)
    except OSError as error:
        raise UnavailableError(
            f"{gpu} can't be leased: its device file can't be opened",
            facts=[
                ("wanted", gpu.device or "a device file, such as /dev/nvidia0"),
                ("found", error.strerror or str(error)),
            ],
            hint="nvidia-smi lists it, but no program of yours could use it. In a container, pass"
            " the device\nfile on; else ask who administers this machine for the right to it.",
        ) from error


def _locked(path: str) -> int | None:
    """A descriptor of the file that locks it; None where another has locked it."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _waited_for(gpus: Sequence[Gpu], count: int) -> str:
    holders = sorted({holder for gpu in gpus if (holder := holder_of(gpu))})
    wanted = "a GPU" if count == 1 else f"{count} GPUs"
    who = f", leased by {' and '.join(holders)}" if holders else ""
    return f"{wanted} of {len(gpus)}{who}"


def holder_of(gpu: Gpu) -> str | None:
    """Which build leases it, as far as the kernel tells: `process 4242`. None where it is free."""
    try:
        status = os.stat(gpu.device)
        with open("/proc/locks") as locks:
            lines = locks.read().splitlines()
    except OSError:
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        _, kind, _, _, process, file, *_ = line.replace("->", "").split()
        if (kind, file) == ("FLOCK", place):
            # Of another PID namespace, such as a container's, the number is not told.
            return f"process {process}" if int(process) > 0 else "another container"
    return None
