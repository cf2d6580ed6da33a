"""Whether operations and trainings give the same bits on other CPUs, and what that costs.

Runs the probes of cpu_probes/ with the settings of a stage with cpu = "x86-64-v3" and one thread:
natively, then on three CPUs that qemu-x86_64 (Debian's qemu-user, the first on PATH) emulates.
Prints every probe whose bits differ from the native ones. qemu 7.2 computes the AVX2 tanh of
oneDNN, and with it its LSTM, wrong by up to 1; 10.0 does not.

Then times the four models with x86-64-v3 and with native, in seconds of the processor.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from measure import TOOL, Bench, Budget

import modelbuild.runtime
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import BOOTSTRAP_LINE, stage_variables

CPUS = ("EPYC-v3", "Haswell-v4", "Cascadelake-Server")
SCRIPTS = ("numpy_probes.py", "torch_probes.py", "models.py")
# In full: a command is looked for on the PATH of the stage, not on this one.
QEMU = shutil.which("qemu-x86_64") or sys.exit("needs qemu-x86_64: Debian's package qemu-user")
PROBES = Path(__file__).parent / "cpu_probes"
RUNTIME = Path(modelbuild.runtime.__file__).parent / "v1"
CAPPED, NATIVE = "x86-64-v3", "native"
RECIPE = """\
schema = 1

[model]
name = "cpus"

[environment]
python = "3.11"
packages = ["torch==2.13.0", "numpy"]

[code]
include = ["nothing.py"]

[stages.nothing]
run = ["python", "nothing.py", "{out}/nothing"]
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Python with torch, as in a stage but for the sandbox, which does not run emulated."""

    python: Path
    packages: Path
    root: Path

    def run(self, cpu: str | None, numerics: str, *script: str) -> subprocess.CompletedProcess[str]:
        """On the CPU that is emulated, or on this one."""
        variables = stage_variables(Hardware(cpu=numerics), Determinism(seed=42))
        variables["MODELBUILD_ROOT"] = str(self.root)
        variables["PYTHONPATH"] = f"{self.root}:{self.packages}"
        return subprocess.run(
            [*([QEMU, "-cpu", cpu] if cpu else []), self.python, *script],
            env=variables,
            cwd=PROBES,
            capture_output=True,
            text=True,
            check=False,
        )

    def digests(self, cpu: str | None, script: str) -> dict[str, str]:
        """By probe. One that ended the process has "crashed", and the next process skips it."""
        found: dict[str, str] = {}
        while True:
            done = self.run(cpu, CAPPED, script, str(len(found)))
            for line in done.stdout.splitlines():
                name, _, digest = line.partition("\t")
                found[name] = digest or "crashed"
            if done.returncode >= 0:
                if done.returncode:
                    sys.exit(f"{script} on {cpu or 'this CPU'}:\n{done.stderr}")
                return found


def main() -> None:
    bench = Bench(__doc__ or "")
    stage = set_up(bench)
    if bench.wants("bits"):
        compare(stage)
    if bench.wants("cost"):
        cost(bench, stage)


def set_up(bench: Bench) -> Stage:
    folder = bench.folder / "recipe"
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "nothing.py").write_text("import sys; open(sys.argv[1], 'w')\n")
    bench.set_up([TOOL, "build", "--no-link"], folder)
    objects = bench.store / "objects"
    (bench.folder / "sitecustomize.py").write_text(BOOTSTRAP_LINE + "\n")
    runtime = bench.folder / "runtime"
    runtime.unlink(missing_ok=True)
    runtime.symlink_to(RUNTIME)
    return Stage(
        python=next(objects.glob("*-cpython-*/bin/python3.11")),
        packages=next(objects.glob("*-env-*/lib/python3.11/site-packages")),
        root=bench.folder,
    )


def compare(stage: Stage) -> None:
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True)
    print(f"\n{version.stdout.splitlines()[0]}\n\n| CPU | probes | other bits than here | s |")
    print("|---|---|---|---|")
    here = {script: stage.digests(None, script) for script in SCRIPTS}
    count = sum(map(len, here.values()))

    def line(cpu: str) -> str:
        started = time.perf_counter()
        differ = []
        for script in SCRIPTS:
            differ += differences(here[script], stage.digests(cpu, script))
        seconds = time.perf_counter() - started
        return f"| {cpu} | {count} | {', '.join(differ) or 'none'} | {seconds:.0f} |"

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for shown in workers.map(line, CPUS):
            print(shown, flush=True)


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    crashed = {name for name, digest in there.items() if digest == "crashed"}
    return [
        f"{name} (the emulator crashed)" if name in crashed else name
        for name, digest in here.items()
        if there.get(name) != digest
    ]


def cost(bench: Bench, stage: Stage) -> None:
    steps = str(bench.scaled(10))
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(bench.options.runs):
        for numerics in (NATIVE, CAPPED):
            done = stage.run(None, numerics, "models.py", "time", steps)
            for name, seconds in (line.split() for line in done.stdout.splitlines()):
                found = rounds.setdefault(name, [])
                if numerics == NATIVE:
                    found.append({})
                found[-1][numerics] = float(seconds)
    budget = Budget(case=CAPPED, says="1.05 x native", limit=lambda medians: 1.05 * medians[NATIVE])
    for name, found in rounds.items():
        bench.report(f"cost of {CAPPED}: a step of the {name}", "s", found, budget)


if __name__ == "__main__":
    main()
