"""One command in the sandbox of a stage, and in a bare one of bubblewrap."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from measure import Bench, Budget
from workspaces import built, workspace

from modelbuild.sandbox.bubblewrap import Bubblewrap
from modelbuild.sandbox.isolation import Command, Mounts
from modelbuild.sandbox.namespaces import required_bwrap
from modelbuild.sandbox.shipped_runtime import current_runtime, runtime_folder

PROGRAM = "/usr/bin/true"
OURS = "modelbuild's sandbox"


def stage(bench: Bench) -> Mounts:
    """The folders of a stage, its interpreter and environment those of a recipe that was built."""
    built(bench, workspace(bench.folder / "one"))
    for name in ("src", "out", "trace"):
        (bench.folder / name).mkdir(exist_ok=True)
    context = bench.folder / "context.json"
    context.write_text("{}")
    return Mounts(
        src=bench.folder / "src",
        environment=store_object(bench, "env"),
        interpreter=store_object(bench, "cpython"),
        runtime=runtime_folder(current_runtime()),
        out=bench.folder / "out",
        trace=bench.folder / "trace",
        context=context,
    )


def store_object(bench: Bench, kind: str) -> Path:
    (path,) = (bench.store / "objects").glob(f"*-{kind}-*")
    return path


def bare() -> float:
    places = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    started = time.perf_counter()
    subprocess.run([required_bwrap(), "--unshare-all", *places, PROGRAM], check=True)
    return time.perf_counter() - started


def ours(mounts: Mounts) -> float:
    command = Command(argv=[PROGRAM], environment={"PATH": "/usr/bin"}, threads=1)
    started = time.perf_counter()
    outcome = Bubblewrap().run(mounts, command, lambda _: None)
    assert outcome.exit_code == 0
    return time.perf_counter() - started


def main() -> None:
    bench = Bench(__doc__ or "")
    mounts = stage(bench)
    count = bench.scaled(100, least=3)
    rounds = [{"bare bwrap": bare(), OURS: ours(mounts)} for _ in range(count + 1)]
    budget = Budget(
        case=OURS,
        says="bare bwrap + 0.03 s",
        limit=lambda medians: medians["bare bwrap"] + 0.03,
    )
    bench.report(f"one command in a sandbox, {count} times", "s", rounds[1:], budget)


if __name__ == "__main__":
    main()
