"""What a machine must have for a recipe, and which numeric class it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.gpus import Gpu, fitting_gpus
from modelbuild.sandbox.machine import (
    LEVELS,
    Machine,
    check_hardware,
    cpu_level,
    read_numeric_class,
    this_machine,
)
from modelbuild.spec.digest import Digest
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.spec.recipe import Determinism, Device, Environment, Hardware, Recipe, Stage

PYTHON = Digest.of(b"an interpreter")
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, driver="550.54.15")
T4 = Gpu(name="Tesla T4", memory_bytes=15 * 2**30, driver="550.54.15")
XEON = Machine(
    system="Linux",
    architecture="x86_64",
    kernel="6.1.0-18-amd64",
    glibc=(2, 36),
    vendor="GenuineIntel",
    model="family 6 model 85: Intel(R) Xeon(R) Gold 6130",
    flags=frozenset(LEVELS["x86-64-v4"]),
    caches="L1d 32K, L1i 32K, L2 1024K, L3 22528K",
)
HERE = this_machine()
on_x86_with_glibc = pytest.mark.skipif(
    HERE.architecture != "x86_64" or HERE.glibc is None or HERE.vendor == "unknown",
    reason="needs glibc, and a /proc/cpuinfo as x86-64 has it",
)
HASWELL = replace(XEON, flags=frozenset(LEVELS["x86-64-v3"]))
NEHALEM = replace(XEON, model="an old one", flags=frozenset(LEVELS["x86-64-v2"]))


def recipe(hardware: Hardware, platform: str = "x86_64-manylinux_2_28") -> Recipe:
    return Recipe(
        path=PurePosixPath("digits/recipe.toml"),
        name="digits",
        description="",
        environment=Environment(python="3.11", packages=(), platform=platform),
        code=(),
        data={},
        params={},
        hardware=hardware,
        determinism=Determinism(),
        stages={"train": Stage(name="train", run=("true",))},
        tolerances={},
        lines={"environment.platform": 3, "hardware": 8, "hardware.cpu": 9, "hardware.gpu": 10},
    )


def cuda(**fields: object) -> Hardware:
    return replace(Hardware(device=Device.CUDA, gpus=1), **fields)  # type: ignore[arg-type]


def refusal(hardware: Hardware, machine: Machine, platform: str = "x86_64-manylinux_2_28") -> str:
    with pytest.raises(UnavailableError) as raised:
        check_hardware(recipe(hardware, platform), machine)
    assert raised.value.exit_code == 8
    return str(raised.value)


def test_a_cpu_without_avx2_is_refused_for_the_default_numerics() -> None:
    assert refusal(Hardware(), NEHALEM) == (
        "digits/recipe.toml:9: this CPU lacks instructions that recipe 'digits' is pinned to\n"
        "  wanted: x86-64-v3\n"
        "  found:  an old one without abm avx avx2 bmi1 bmi2 f16c fma movbe xsave\n"
        "Build it on a newer machine, or declare another in the recipe, with other bits:"
        ' cpu = "x86-64-v2".'
    )


def test_a_cpu_below_every_level_gets_no_impossible_advice() -> None:
    message = refusal(Hardware(cpu="x86-64-v2"), replace(NEHALEM, flags=frozenset({"sse2"})))
    assert message.endswith("\nBuild it on a newer machine.")


@pytest.mark.parametrize(
    ("machine", "levels"),
    [(XEON, 3), (HASWELL, 2), (NEHALEM, 1)],
)
def test_a_cpu_honours_its_own_level_and_those_below(machine: Machine, levels: int) -> None:
    able = ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
    for level in [*able[:levels], "native"]:
        check_hardware(recipe(Hardware(cpu=level)), machine)
    for level in able[levels:]:
        refusal(Hardware(cpu=level), machine)


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (frozenset(), None),
        (frozenset({"sse2"}), None),
        (NEHALEM.flags, "x86-64-v2"),
        (HASWELL.flags, "x86-64-v3"),
        (HASWELL.flags - {"fma"}, "x86-64-v2"),
        (XEON.flags, "x86-64-v4"),
    ],
)
def test_the_level_of_a_cpu_is_the_highest_that_is_complete(
    flags: frozenset[str], level: str | None
) -> None:
    assert cpu_level(flags) == level


def test_fewer_processors_than_threads_or_processes_is_fine() -> None:
    check_hardware(recipe(Hardware(threads=4096, processes=64)), XEON)


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        (replace(XEON, architecture="aarch64"), "Linux on aarch64 with glibc 2.36"),
        (replace(XEON, system="Darwin", glibc=None), "Darwin on x86_64"),
        (replace(XEON, glibc=(2, 17)), "Linux on x86_64 with glibc 2.17"),
        (replace(XEON, glibc=None), "Linux on x86_64"),
    ],
)
def test_another_platform_than_the_environments_is_refused(machine: Machine, found: str) -> None:
    assert refusal(Hardware(), machine) == (
        "digits/recipe.toml:3: recipe 'digits' is for a platform that this machine is not\n"
        "  wanted: x86_64-manylinux_2_28\n"
        f"  found:  {found}\n"
        "Build it on such a machine. Locking and `modelbuild verify` without --rebuild work here."
    )


def test_the_oldest_glibc_of_the_platform_is_enough() -> None:
    check_hardware(recipe(Hardware()), replace(XEON, glibc=(2, 28)))
    check_hardware(recipe(Hardware()), replace(XEON, glibc=(3, 0)))


def test_a_machine_without_a_gpu_is_refused() -> None:
    assert refusal(cuda(), XEON) == (
        "digits/recipe.toml:8: this machine lacks the GPUs of recipe 'digits'\n"
        "  wanted: 1 GPU\n"
        "  found:  none that nvidia-smi lists\n"
        "Build it on a machine that has them."
    )


def test_gpus_of_another_name_or_too_small_do_not_count() -> None:
    hardware = cuda(gpus=2, gpu="NVIDIA H100*", gpu_memory_bytes=40 * 2**30)
    small = replace(H100, memory_bytes=20 * 2**30)
    assert refusal(hardware, replace(XEON, gpus=(T4, H100, small))) == (
        "digits/recipe.toml:10: this machine lacks the GPUs of recipe 'digits'\n"
        "  wanted: 2 GPUs named NVIDIA H100* of at least 40.0 GiB\n"
        "  found:  Tesla T4, 15.0 GiB\n"
        "          NVIDIA H100 80GB HBM3, 80.0 GiB\n"
        "          NVIDIA H100 80GB HBM3, 20.0 GiB\n"
        "Build it on a machine that has them."
    )


def test_a_stage_gets_the_gpus_that_fit() -> None:
    machine = replace(XEON, gpus=(T4, H100, H100, H100))
    hardware = cuda(gpus=2, gpu="NVIDIA H100*")
    check_hardware(recipe(hardware), machine)
    assert fitting_gpus(hardware, machine.gpus) == (H100, H100, H100)
    assert (
        read_numeric_class(hardware, PYTHON, machine).facts["gpus"] == f"{H100.name}, {H100.name}"
    )


def test_the_same_facts_are_the_same_class() -> None:
    one = NumericClass({"a": "1", "b": "2"})
    other = NumericClass({"b": "2", "a": "1"})
    assert one.key == other.key == "452606680be6"
    assert NumericClass({"a": "1", "b": "3"}).key != one.key


@pytest.mark.parametrize(
    "change",
    [
        {"vendor": "AuthenticAMD"},
        {"model": "family 25 model 1: AMD EPYC 7763"},
        {"caches": "L1d 48K"},
        {"kernel": "6.2.0"},
    ],
)
def test_another_machine_is_another_class(change: dict[str, str]) -> None:
    other = replace(XEON, **change)  # type: ignore[arg-type]
    here, there = (read_numeric_class(Hardware(), PYTHON, each) for each in (XEON, other))
    assert here.key != there.key


def test_another_interpreter_is_another_class() -> None:
    here = read_numeric_class(Hardware(), PYTHON, XEON)
    assert here != read_numeric_class(Hardware(), Digest.of(b"another"), XEON)


def test_what_is_in_the_derivation_makes_no_class() -> None:
    here = read_numeric_class(Hardware(), PYTHON, XEON)
    assert here == read_numeric_class(Hardware(threads=2, processes=3), PYTHON, XEON)


def test_instructions_above_the_recipes_cap_make_no_class() -> None:
    assert read_numeric_class(Hardware(), PYTHON, XEON) == (
        read_numeric_class(Hardware(), PYTHON, HASWELL)
    )
    native = Hardware(cpu="native")
    here, there = (read_numeric_class(native, PYTHON, each) for each in (XEON, HASWELL))
    assert here != there
    assert there.facts["instructions"] == "avx avx2 f16c fma sse4_1 sse4_2 ssse3"


def test_a_patched_kernel_is_the_same_class() -> None:
    patched = replace(XEON, kernel="6.1.99-cloud")
    assert read_numeric_class(Hardware(), PYTHON, patched).facts["kernel"] == "6.1"
    assert read_numeric_class(Hardware(), PYTHON, patched) == (
        read_numeric_class(Hardware(), PYTHON, XEON)
    )


def test_only_recipes_for_a_gpu_have_gpus_in_their_class() -> None:
    with_gpu = replace(XEON, gpus=(H100,))
    assert read_numeric_class(Hardware(), PYTHON, with_gpu) == (
        read_numeric_class(Hardware(), PYTHON, XEON)
    )
    facts = read_numeric_class(cuda(), PYTHON, with_gpu).facts
    assert (facts["gpus"], facts["driver"]) == (H100.name, "550.54.15")


@on_x86_with_glibc
def test_the_class_of_this_machine_is_known_and_names_neither_host_nor_path() -> None:
    here = read_numeric_class(Hardware(), PYTHON)
    assert {"unknown", "absent"}.isdisjoint(
        here.facts[name] for name in ("cpu-vendor", "cpu-model", "loader", "libc", "libm")
    )
    text = repr(here.facts)
    assert os.uname().nodename not in text
    assert "/usr" not in text
    assert "/lib" not in text
    assert here == read_numeric_class(Hardware(), PYTHON)


@on_x86_with_glibc
def test_this_machine_can_build_what_it_says_it_can() -> None:
    machine = this_machine()
    check_hardware(recipe(Hardware(cpu="native")), machine)
    assert machine.glibc is not None
