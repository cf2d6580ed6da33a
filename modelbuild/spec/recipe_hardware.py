"""The `[hardware]` and `[determinism]` tables of a recipe."""

from __future__ import annotations

import re

from modelbuild.spec.recipe import Determinism, Device, Hardware, Level
from modelbuild.spec.recipe_fields import Table, describe, listing

SEEDS = range(2**32)
"""What both `torch.manual_seed` and `numpy.random.seed` take."""
COUNTS = range(1, 2**16)
"""Of threads, processes and GPUs."""
STRIDES = range(2**31)
_CPUS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "native")
_MKL = ("patched", "unchanged")
_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = rf"([0-9]{{1,9}}(?:\.[0-9]{{1,3}})?) ?({'|'.join(_UNITS)})"


def read_hardware(table: Table) -> Hardware:
    table.only(("device", "threads", "cpu", "mkl", "gpu", "gpus", "gpu-memory", "processes"))
    hint = "Did you mean 'cuda'?" if table.values.get("device") == "gpu" else None
    known = [device.value for device in Device]
    device = Device(table.choice("device", Device.CPU, known, hint))
    return Hardware(
        device=device,
        threads=table.integer("threads", 1, COUNTS),
        cpu=table.choice("cpu", "x86-64-v3", _CPUS),
        mkl=table.choice("mkl", "patched", _MKL),
        gpu=table.text("gpu", None),
        gpus=_read_gpus(table, device),
        gpu_memory_bytes=_read_size(table, "gpu-memory"),
        processes=table.integer("processes", 1, COUNTS),
    )


def _read_gpus(table: Table, device: Device) -> int:
    if device is Device.CUDA:
        return table.integer("gpus", 1, COUNTS)
    for key in ("gpu", "gpus", "gpu-memory"):
        if table.values.get(key, 0) != 0:
            table.fail(
                key,
                f'{table.named(key)} needs device = "cuda"',
                wanted='device = "cuda"',
                found=f'device = "{device.value}"',
            )
    return table.integer("gpus", 0, range(1))


def _read_size(table: Table, key: str) -> int | None:
    text = table.text(key, None, 'a size in quotes: "40 GiB"')
    if text is None:
        return None
    match = re.fullmatch(_SIZE, text)
    size = int(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0
    if size < 1:
        table.fail(
            key,
            f"{table.named(key)} is not a size",
            wanted=f'a number and one of {listing(_UNITS)}, as in "40 GiB"',
            found=describe(text),
        )
    return size


def read_determinism(table: Table) -> Determinism:
    table.only(("seed", "level", "tf32", "allow", "trace-every"))
    level = Level(table.choice("level", Level.BITWISE, [known.value for known in Level]))
    return Determinism(
        seed=table.integer("seed", 0, SEEDS),
        level=level,
        tf32=_read_tf32(table),
        allow=_read_allow(table, level),
        trace_every=table.integer("trace-every", 1, STRIDES),
    )


def _read_allow(table: Table, level: Level) -> tuple[str, ...]:
    operations = table.texts("allow", ())
    if operations and level is Level.BITWISE:
        table.fail(
            "allow",
            f"{table.named('allow')} does not go with level 'bitwise'",
            wanted='level = "functional" or level = "recorded"',
            found=f'level = "bitwise"{"" if "level" in table.values else ", the default"}',
            hint="An operation that is allowed here may give other bits in every run. Lower the "
            "level, or do without the operation.",
        )
    return operations


def _read_tf32(table: Table) -> str:
    value = table.values.get("tf32", "script")
    if value is False:
        return "false"
    if value != "script":
        table.fail(
            "tf32",
            f"unknown value of {table.named('tf32')}",
            wanted='"script" or false',
            found=describe(value),
        )
    return "script"
