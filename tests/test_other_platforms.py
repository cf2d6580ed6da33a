"""On macOS and aarch64, `lock` and the cheap `verify` work; `build` says what is missing.

There is no such machine here: Python is told that it runs on one. That shows that nothing of
ours asks for Linux there, not that the tools below do their part.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Ran, Tiny

from modelbuild.spec.lock_file import parse_lock

ELSEWHERE = """
import sysconfig
sysconfig.get_config_vars()  # while the platform is the true one
import asyncio, ctypes, multiprocessing, socket, subprocess, tempfile, urllib.request
import os, platform, sys
sys.platform, system, machine = {platform!r}
platform.system, platform.machine = lambda: system, lambda: machine
uname = os.uname_result((system, "host", "0", "0", machine))
os.uname = lambda: uname
from modelbuild.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

MAC = ("darwin", "Darwin", "arm64")
AARCH64 = ("linux", "Linux", "aarch64")


def elsewhere(tiny: Tiny, platform: tuple[str, str, str], *arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.format(platform=platform), *arguments],
        cwd=tiny.root,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("platform", [MAC, AARCH64])
def test_what_is_locked_elsewhere_builds_here(
    tiny: Tiny, tmp_path: Path, platform: tuple[str, str, str]
) -> None:
    assert elsewhere(tiny, platform, "lock").code == 0
    lock = parse_lock((tiny.root / "model.lock").read_bytes())
    (environment,) = lock.environments.values()
    assert environment.platform == "x86_64-manylinux_2_28"
    assert environment.interpreters == ()  # that machine has none for the target
    assert elsewhere(tiny, platform, "lock", "--check").code == 0
    derivations = {n: s.derivation for n, s in lock.recipes["tiny"].stages.items()}
    stages = tiny.build()
    assert {name: stage["derivation"] for name, stage in stages.items()} == {
        name: str(derivation) for name, derivation in derivations.items()
    }
    lock = parse_lock((tiny.root / "model.lock").read_bytes())
    (environment,) = lock.environments.values()
    assert len(environment.interpreters) == 1


@pytest.mark.parametrize("platform", [MAC, AARCH64])
def test_a_lock_is_verified_elsewhere(tiny: Tiny, platform: tuple[str, str, str]) -> None:
    tiny.build()
    ran = elsewhere(tiny, platform, "verify")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("tiny: lock current\n")


@pytest.mark.parametrize("platform", [MAC, AARCH64])
def test_a_build_elsewhere_is_exit_code_8(tiny: Tiny, platform: tuple[str, str, str]) -> None:
    tiny.run("lock")
    ran = elsewhere(tiny, platform, "build")
    assert ran.code == 8
    assert "recipe.toml" in ran.err
