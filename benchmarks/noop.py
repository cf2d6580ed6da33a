"""Nothing to do: all is built, nothing changed."""

from __future__ import annotations

import sys

import peers
from measure import Bench, Budget, Case, Command
from workspaces import BUILD, built, crowd, many_files, settle, workspace

NAME = "modelbuild build"


def at_most(seconds: float) -> Budget:
    return Budget(case=NAME, says="the whole process", limit=lambda _: seconds)


def main() -> None:
    bench = Bench(__doc__ or "")
    for length, seconds in ((1, 0.06), (10, None), (100, 0.10)):
        if not bench.wants(title := f"nothing to do, stages: {length}"):
            continue
        folder = built(bench, workspace(bench.folder / f"chain-{length}", stages=length))
        ours = Case(name=NAME, command=BUILD, folder=folder)
        budget = at_most(seconds) if seconds else None
        bench.group(title, [*peers.chains(bench, length), ours], budget)

    if bench.wants(title := "nothing to do, stages: 1, lock of 10 recipes with 60 packages each"):
        folder = built(bench, workspace(bench.folder / "crowded"))
        crowd(folder, recipes=10, packages=60)
        settle(bench, folder)
        start: Command = [sys.executable, "-I", "-S", "-c", "pass"]
        cases = [
            Case(name="python -I -S -c pass", command=start, folder=folder),
            Case(name=NAME, command=BUILD, folder=folder),
        ]
        bench.group(title, cases, at_most(0.06))

    count = bench.scaled(100_000)
    if bench.wants(title := f"nothing to do, data set of {count:,} files"):
        folder = bench.folder / "files"
        folder.mkdir(exist_ok=True)
        data = many_files(folder / "data", count)
        built(bench, workspace(folder, data="data"))
        cases = [
            *peers.git_status(bench, data),
            *peers.dvc_status(bench, data),
            Case(name=NAME, command=BUILD, folder=folder),
        ]
        bench.group(title, cases, at_most(0.45))


if __name__ == "__main__":
    main()
