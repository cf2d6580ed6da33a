"""The same work for the tools that people use today; what is not installed is skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from measure import Bench, Case, Command

STEP = """\
import sys

open(sys.argv[2], "w").write(open(sys.argv[1]).read() + "x")
"""
NIX = """\
let
  stage = number: previous: derivation {
    name = "stage-${toString number}";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo ${toString number} ${previous} > $out" ];
  };
  chain = number: if number == 0 then "" else stage number (chain (number - 1));
in chain LENGTH
"""
NIX_SETTINGS = "build-users-group =\nsandbox = false\nsubstituters =\n"
COMMIT = ["-c", "user.name=b", "-c", "user.email=b@example.invalid", "commit", "-q", "-m", "data"]


def find(bench: Bench, name: str) -> Path | None:
    """A peer's program: in its own environment, else on PATH."""
    for place in (bench.peers / name / "bin" / name, shutil.which(name)):
        if place and Path(place).exists():
            return Path(place)
    print(f"skipped: {name} is not installed")
    return None


def chains(bench: Bench, length: int) -> list[Case]:
    """Nothing to do in a chain of `length` stages, by each peer."""
    cases = []
    for name, make in (("nix-build", _nix), ("snakemake", _snakemake), ("dvc", _dvc)):
        program = find(bench, name)
        if program:
            folder = bench.folder / f"{name}-{length}"
            folder.mkdir(exist_ok=True)
            (folder / "step.py").write_text(STEP)
            (folder / "0").write_text("0")
            case = make(program, folder, length)
            bench.run(case)
            cases.append(case)
    return cases


def _nix(program: Path, folder: Path, length: int) -> Case:
    """With a store of its own."""
    (folder / "default.nix").write_text(NIX.replace("LENGTH", str(length)))
    places = {
        "NIX_CONF_DIR": folder / "etc",
        "NIX_STORE_DIR": folder / "store",
        "NIX_STATE_DIR": folder / "var",
        "NIX_LOG_DIR": folder / "log",
    }
    for place in places.values():
        place.mkdir(exist_ok=True)
    (folder / "etc" / "nix.conf").write_text(NIX_SETTINGS)
    return Case(
        name="nix-build",
        command=[program, "--no-out-link"],
        folder=folder,
        environment={name: str(place) for name, place in places.items()},
    )


def _snakemake(program: Path, folder: Path, length: int) -> Case:
    rules = [f"rule all:\n    input: '{length}'\n"]
    for number in range(length):
        command = f"{sys.executable} step.py {number} {number + 1}"
        rules.append(
            f"rule s{number}:\n    input: 'step.py', '{number}'\n"
            f"    output: '{number + 1}'\n    shell: '{command}'\n"
        )
    (folder / "Snakefile").write_text("\n".join(rules))
    return Case(name="snakemake", command=[program, "-c1", "all"], folder=folder)


def _dvc(program: Path, folder: Path, length: int) -> Case:
    lines = ["stages:"]
    for number in range(length):
        lines += [
            f"  s{number}:",
            f"    cmd: {sys.executable} step.py {number} {number + 1}",
            f"    deps: [step.py, '{number}']",
            f"    outs: ['{number + 1}']",
        ]
    _dvc_repository(program, folder)
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    return Case(name="dvc repro", command=[program, "repro"], folder=folder)


def git_add(bench: Bench, data: Path) -> list[Case]:
    """From nothing."""
    program = find(bench, "git")
    if program is None:
        return []
    folder = _copy(data, bench.folder / "git")

    def forget() -> None:
        bench.away(folder / ".git")
        _run(folder, program, "init", "-q", ".")

    return [Case(name="git add", command=[program, "add", "."], folder=folder, prepare=forget)]


def git_status(bench: Bench, data: Path) -> list[Case]:
    program = find(bench, "git")
    if program is None:
        return []
    folder = _copy(data, bench.folder / "git")
    if not (folder / ".git").exists():
        _run(folder, program, "init", "-q", ".")
        _run(folder, program, "add", ".")
        _run(folder, program, *COMMIT)
    return [Case(name="git status", command=[program, "status", "--porcelain"], folder=folder)]


def dvc_add(bench: Bench, data: Path) -> list[Case]:
    """From nothing."""
    program = find(bench, "dvc")
    if program is None:
        return []
    folder = _copy(data, bench.folder / f"dvc-{data.name}")
    _dvc_repository(program, folder)

    def forget() -> None:
        known = (f"{data.name}.dvc", ".gitignore", ".dvc/cache", ".dvc/tmp", ".site")
        bench.away(*(folder / name for name in known))

    command: Command = [program, "add", "-q", data.name]
    return [Case(name="dvc add", command=command, folder=folder, prepare=forget)]


def dvc_status(bench: Bench, data: Path) -> list[Case]:
    program = find(bench, "dvc")
    if program is None:
        return []
    folder = _copy(data, bench.folder / f"dvc-{data.name}")
    _dvc_repository(program, folder)
    _run(folder, program, "add", "-q", data.name)
    return [Case(name="dvc status", command=[program, "status"], folder=folder)]


def _dvc_repository(program: Path, folder: Path) -> None:
    if not (folder / ".dvc").exists():
        _run(folder, "git", "init", "-q", ".")
        _run(folder, program, "init", "-q")
        _run(folder, program, "config", "core.site_cache_dir", folder / ".site")


def _run(folder: Path, *command: str | Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _copy(data: Path, folder: Path) -> Path:
    """A folder with a copy of the data in it: peers may change what they take in."""
    if not folder.exists():
        folder.mkdir()
        copy = shutil.copytree if data.is_dir() else shutil.copyfile
        copy(data, folder / data.name)
    return folder
