"""Which GPUs a stage gets, that it alone has them, and who else is seen on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Ran
from fake_gpus import GpuMachine, gpu_machine

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.gpus import (
    Gpu,
    device_files,
    fitting_gpus,
    parse_gpus,
    parse_programs,
)
from modelbuild.sandbox.host_system import driver_devices, driver_folder
from modelbuild.sandbox.lease import PAUSE_SECONDS, holder_of, leased
from modelbuild.spec.recipe import Device, Hardware
from modelbuild.store.store import Store

PLACES = ["00000000:17:00.0", "00000000:65:00.0"]
LISTED = (
    "0, GPU-aaaa, 00000000:17:00.0, NVIDIA H100 80GB HBM3, 81920, 550.54.15\n"
    "1, GPU-bbbb, 00000000:65:00.0, GB10, spare, [N/A], 580.1\n"
)
H100 = Gpu(
    name="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 2**30,
    driver="550.54.15",
    index=0,
    uuid="GPU-aaaa",
    device="/dev/nvidia3",
)


# What the driver says


def test_what_nvidia_smi_prints_is_read() -> None:
    spare = Gpu(
        name="GB10, spare",
        memory_bytes=0,
        driver="580.1",
        index=1,
        uuid="GPU-bbbb",
        device="/dev/nvidia0",
    )
    assert parse_gpus(LISTED, ["/dev/nvidia3", "/dev/nvidia0"]) == (H100, spare)


def test_device_files_follow_the_place_on_the_bus_not_the_count(tmp_path: Path) -> None:
    for place, minor in (("0000:65:00.0", 0), ("0000:17:00.0", 3)):
        folder = tmp_path / "proc/driver/nvidia/gpus" / place
        folder.mkdir(parents=True)
        text = f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n"
        (folder / "information").write_text(text)
    assert device_files(PLACES, tmp_path) == ["/dev/nvidia3", "/dev/nvidia0"]


def test_in_a_container_that_hides_the_driver_its_device_files_are_taken_in_order(
    tmp_path: Path,
) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia10", "nvidia9", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert device_files(PLACES, tmp_path) == ["/dev/nvidia9", "/dev/nvidia10"]
    assert device_files(PLACES[:1], tmp_path) == [""], "which of the two can't be told"
    (tmp_path / "dev" / "dxg").touch()
    assert device_files(PLACES[:1], tmp_path) == ["/dev/dxg"]


def test_only_the_devices_of_given_gpus_are_shown() -> None:
    shown = driver_devices([H100, replace(H100, device="/dev/nvidia0"), replace(H100, device="")])
    assert [name for name in shown if name[-1].isdigit()] == ["/dev/nvidia3", "/dev/nvidia0"]
    assert "/dev/nvidiactl" in shown
    assert driver_devices([]) == []


def test_libraries_of_the_driver_are_looked_for_where_the_loader_does_not(tmp_path: Path) -> None:
    assert driver_folder(tmp_path) is None
    cluster = tmp_path / "usr/local/nvidia/lib64"
    system = tmp_path / "usr/lib/x86_64-linux-gnu"
    for folder in (cluster, system):
        folder.mkdir(parents=True)
    (cluster / "libcuda.so.1").touch()
    assert driver_folder(tmp_path) == "/usr/local/nvidia/lib64"
    (system / "libcuda.so.1").touch()
    assert driver_folder(tmp_path) is None


def test_programs_on_a_gpu_are_named_and_hidden_ones_noticed() -> None:
    other = replace(H100, index=1, uuid="GPU-bbbb")
    programs = "GPU-aaaa, 42, /opt/a, b/python, 3000\nGPU-cccc, 43, x, 1\nGPU-aaaa, 44, y, [N/A]\n"
    memory = "GPU-aaaa, 3000\nGPU-bbbb, 2048\nGPU-cccc, 9000\n"
    assert parse_programs(programs, memory, [H100, other]) == [
        "GPU 0 (NVIDIA H100 80GB HBM3): process 42 (python), 3000 MiB",
        "GPU 0 (NVIDIA H100 80GB HBM3): process 44 (y)",
        "GPU 1 (NVIDIA H100 80GB HBM3): a program that can't be seen from here, 2048 MiB",
    ]
    assert parse_programs("", "GPU-aaaa, 600\nGPU-bbbb, [N/A]\n", [H100, other]) == []


# Which of them


def test_gpus_of_one_kind_are_chosen_from_so_that_the_class_is_known_before() -> None:
    t4 = replace(H100, name="Tesla T4", memory_bytes=15 * 2**30)
    second, third = replace(H100, index=1), replace(H100, index=2)
    two = Hardware(device=Device.CUDA, gpus=2)
    assert fitting_gpus(two, [t4, H100, second, third]) == (H100, second, third)
    assert fitting_gpus(replace(two, gpus=1), [t4, H100, second]) == (t4,)
    assert fitting_gpus(replace(two, gpu="*H100*", gpus=1), [t4, H100]) == (H100,)
    assert fitting_gpus(two, [t4, H100]) == (t4, H100)
    assert fitting_gpus(replace(two, gpu_memory_bytes=2**35), [t4, H100]) == (H100,)


# Leases


@pytest.fixture
def gpus(tmp_path: Path) -> tuple[Gpu, ...]:
    """Files stand for devices: they are locked alike."""
    (tmp_path / "nvidiactl").touch()
    for index in range(3):
        (tmp_path / f"nvidia{index}").touch()
    return tuple(
        replace(H100, index=index, device=str(tmp_path / f"nvidia{index}")) for index in range(3)
    )


def refuse_to_wait(what: str) -> None:
    raise AssertionError(what)


HOLD = """
import sys
from modelbuild.sandbox.gpus import Gpu
from modelbuild.sandbox.lease import leased
gpus = [Gpu(name="", memory_bytes=0, driver="", device=path) for path in sys.argv[2:]]
with leased(gpus, int(sys.argv[1]), lambda what: print(what, flush=True)) as held:
    print("holds", *(gpu.device for gpu in held), flush=True)
    sys.stdin.read()
"""


@contextmanager
def hold(count: int, gpus: tuple[Gpu, ...]) -> Iterator[subprocess.Popen[str]]:
    """Another process that leases some of them until its stdin ends."""
    paths = [gpu.device for gpu in gpus]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count), *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("twenty seconds have passed")


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_first_gpus_that_are_free_are_leased(gpus: tuple[Gpu, ...]) -> None:
    with hold(1, gpus) as other:
        assert said(other) == f"holds {gpus[0].device}"
        with leased(gpus, 2, refuse_to_wait) as held:
            assert held == gpus[1:]
            assert [holder_of(gpu) for gpu in gpus] == [
                f"process {other.pid}",
                *[f"process {os.getpid()}"] * 2,
            ]
        other.communicate("")
    assert [holder_of(gpu) for gpu in gpus] == [None] * 3


def test_who_waits_says_for_whom(gpus: tuple[Gpu, ...]) -> None:
    with leased(gpus[:1], 1, refuse_to_wait), hold(2, gpus[:2]) as other:
        assert said(other) == f"2 GPUs of 2, leased by process {os.getpid()}"


def test_who_is_first_in_line_keeps_what_becomes_free_and_others_hold_nothing(
    gpus: tuple[Gpu, ...],
) -> None:
    with leased(gpus[:1], 1, refuse_to_wait), hold(2, gpus[:2]) as first:
        assert said(first).startswith("2 GPUs of 2")
        wait_until(lambda: holder_of(gpus[1]) == f"process {first.pid}")
        with hold(2, (gpus[0], gpus[2])) as second:
            assert said(second).startswith("2 GPUs of 2")
            time.sleep(3 * PAUSE_SECONDS)
            with leased(gpus[2:], 1, refuse_to_wait) as held:
                assert held == gpus[2:]


def test_many_that_need_one_gpu_do_not_keep_one_that_needs_two_from_its_turn(
    gpus: tuple[Gpu, ...],
) -> None:
    """But for what it keeps itself, the two are never free at the same time."""
    with hold(1, gpus[:1]) as one, hold(1, gpus[1:2]) as another:
        assert said(one).startswith("holds")
        assert said(another).startswith("holds")
        with hold(2, gpus[:2]) as both:
            assert said(both).startswith("2 GPUs of 2")
            one.communicate("")
            wait_until(lambda: holder_of(gpus[0]) == f"process {both.pid}")
            another.communicate("")
            assert said(both) == f"holds {gpus[0].device} {gpus[1].device}"
            both.communicate("")


def test_without_the_drivers_control_file_who_waits_holds_nothing(
    gpus: tuple[Gpu, ...], tmp_path: Path
) -> None:
    (tmp_path / "nvidiactl").unlink()
    with leased(gpus[:1], 1, refuse_to_wait), hold(2, gpus[:2]) as other:
        assert said(other).startswith("2 GPUs of 2")
        time.sleep(3 * PAUSE_SECONDS)
        with leased(gpus[1:], 2, refuse_to_wait) as rest:
            assert rest == gpus[1:]


def test_a_lease_ends_with_its_process_however_that_ends(gpus: tuple[Gpu, ...]) -> None:
    with hold(3, gpus) as first:
        assert said(first).startswith("holds")
        with hold(1, gpus) as second:
            assert said(second) == f"a GPU of 3, leased by process {first.pid}"
            first.send_signal(signal.SIGKILL)
            assert said(second) == f"holds {gpus[0].device}"
            second.communicate("")


def test_what_a_build_starts_does_not_keep_its_lease(gpus: tuple[Gpu, ...]) -> None:
    with leased(gpus, 3, refuse_to_wait):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with leased(gpus, 3, refuse_to_wait) as again:
            assert again == gpus
    finally:
        child.kill()
        child.wait()


def test_gpus_behind_one_device_file_are_leased_together(gpus: tuple[Gpu, ...]) -> None:
    same = (gpus[0], replace(gpus[1], device=gpus[0].device))
    with leased(same, 2, refuse_to_wait) as held:
        assert held == same


def test_a_gpu_without_a_device_file_is_refused(gpus: tuple[Gpu, ...]) -> None:
    lost = replace(H100, device="/dev/nvidia-is-not-here")
    with pytest.raises(UnavailableError) as caught, leased([lost], 1, refuse_to_wait):
        pass
    assert str(caught.value) == (
        "GPU 0 (NVIDIA H100 80GB HBM3) can't be leased: its device file can't be opened\n"
        "  wanted: /dev/nvidia-is-not-here\n"
        "  found:  No such file or directory\n"
        "nvidia-smi lists it, but no program of yours could use it. In a container, pass the "
        "device\nfile on; else ask who administers this machine for the right to it."
    )


# Builds on a machine with device files

RECIPE = """\
schema = 1

[model]
name = "seen"

[environment]
python = "3.11"
packages = []

[code]
include = ["*.py"]

[hardware]
device = "cuda"
gpu = "NVIDIA H100*"

[params]
wait = ""

[stages.train]
run = ["python", "train.py", "{params.wait}", "{out}"]
metrics = "seen.json"
"""

TRAIN = """\
import json, os, sys, time
devices = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
print(devices, flush=True)
if sys.argv[1]:
    time.sleep(float(sys.argv[1]))
seen = {"devices": devices, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
json.dump(seen, open(sys.argv[2] + "/seen.json", "w"))
"""


@pytest.fixture
def machine(tmp_path: Path, store: Store) -> Iterator[GpuMachine]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter"))):
        pytest.skip("only root can make device files, in a mount namespace")
    try:
        with gpu_machine(tmp_path / "workspace", tmp_path) as made:
            made.write("recipe.toml", RECIPE)
            made.write("train.py", TRAIN)
            yield made
    except AssertionError:
        pytest.skip("this container's root can't make device files")


def seen(stages: dict) -> dict:
    return json.loads(Path(stages["train"]["path"], "seen.json").read_text())


def test_a_stage_sees_its_own_gpu_and_no_other(machine: GpuMachine) -> None:
    assert seen(machine.build()) == {"devices": ["nvidia0", "nvidiactl"], "visible": None}
    machine.replace("recipe.toml", 'gpu = "NVIDIA H100*"', "gpus = 2")
    assert seen(machine.build())["devices"] == ["nvidia0", "nvidia2", "nvidiactl"]
    machine.replace("recipe.toml", 'device = "cuda"\ngpus = 2', 'device = "cpu"')
    assert seen(machine.build()) == {"devices": [], "visible": ""}


def test_without_isolation_a_stage_is_told_its_gpu_by_name(machine: GpuMachine) -> None:
    assert seen(machine.build("--isolation", "none"))["visible"] == "GPU-aaaa"


def test_builds_at_the_same_time_get_different_gpus_and_the_third_waits(
    machine: GpuMachine,
) -> None:
    machine.run("lock")
    environment = {**os.environ, **machine.environment}
    builds = [
        subprocess.Popen(
            machine.command("build", "--set", f'params.wait="{seconds}"', "--no-link", "--json"),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seconds in ("4.0", "4.1", "4.2")
    ]
    finished = [build.communicate(timeout=120) for build in builds]
    assert [build.returncode for build in builds] == [0, 0, 0], finished
    devices = sorted(seen(json.loads(out)["stages"])["devices"][0] for out, _ in finished)
    assert set(devices) == {"nvidia0", "nvidia2"}
    said = [line for _, err in finished for line in err.splitlines()]
    waited = [line for line in said if line.startswith("seen:train: waiting")]
    assert len(waited) == 1
    assert waited[0].startswith("seen:train: waiting for a GPU of 2, leased by process ")


def test_other_programs_on_the_gpu_are_noted_and_no_failure(machine: GpuMachine) -> None:
    machine.use("GPU-aaaa, 4242, /usr/bin/python3, 3000\nGPU-bbbb, 4243, other, 10\n")
    ran = machine.run("build")
    assert ran.code == 0, ran.err
    shared = "GPU 0 (NVIDIA H100 80GB HBM3): process 4242 (python3), 3000 MiB"
    assert f"note: a GPU was shared when the stage began: {shared}" in ran.err
    assert f"note: a GPU was shared when the stage ended: {shared}" in ran.err
    assert "4243" not in ran.err


def test_a_shell_has_a_lease_too(machine: GpuMachine) -> None:
    code = "import os; print(sorted(os.listdir('/dev')))"
    ran = machine.run("shell", "--", "python", "-c", code)
    assert "'nvidia0', 'nvidiactl'" in ran.out
    assert "nvidia2" not in ran.out


def test_doctor_shows_gpus_their_files_and_who_uses_them(machine: GpuMachine) -> None:
    machine.use("GPU-bbbb, 4243, other, 10\n")
    found: Ran = machine.run("doctor", "--json")
    gpus = next(each for each in found.json["findings"] if each["name"] == "GPUs")
    assert gpus["ok"]
    assert gpus["found"].splitlines() == [
        "GPU 0 (NVIDIA H100 80GB HBM3), 79.6 GiB, driver 550.54.15, /dev/nvidia0, free",
        "GPU 1 (NVIDIA H100 80GB HBM3), 79.6 GiB, driver 550.54.15, /dev/nvidia2, free",
        "in use: GPU 1 (NVIDIA H100 80GB HBM3): process 4243 (other), 10 MiB",
    ]
