"""The first lock of data: nothing is known of it, all of it is read."""

from __future__ import annotations

from pathlib import Path

import peers
from measure import TOOL, Bench, Budget, Case
from workspaces import large_file, many_files, workspace

NAME = "modelbuild lock"
START = "modelbuild lock, 1 byte"


def first_lock(bench: Bench, name: str, folder: Path) -> Case:
    """With an empty store, and without a lock."""
    store = folder / ".store"

    def forget() -> None:
        bench.away(store, folder / "model.lock")

    variables = {"MODELBUILD_STORE": str(store)}
    return Case(
        name=name, command=[TOOL, "lock"], folder=folder, environment=variables, prepare=forget
    )


def over(pattern: Path, program: str) -> list[str]:
    """A program on all files of a folder, or on one file."""
    return ["sh", "-c", f"find {pattern} -type f -print0 | xargs -0 {program} >/dev/null"]


def main() -> None:
    bench = Bench(__doc__ or "")
    start = first_lock(bench, START, workspace(bench.folder / "byte"))

    mebibytes = bench.scaled(2048)
    if bench.wants(title := f"first lock of one file of {mebibytes:,} MiB"):
        folder = workspace(bench.folder / "large", data="large.bin")
        data = large_file(folder / "large.bin", mebibytes)
        cases = []
        if program := peers.find(bench, "b3sum"):
            cases.append(Case(name="b3sum", command=[program, data], folder=folder))
        cases += peers.dvc_add(bench, data)
        cases += [start, first_lock(bench, NAME, folder)]
        budget = Budget(
            case=NAME,
            says="1.2 x b3sum + start-up",
            limit=lambda medians: 1.2 * medians["b3sum"] + medians[START],
        )
        bench.group(title, cases, budget if program else None)

    count = bench.scaled(100_000)
    if bench.wants(title := f"first lock of {count:,} files of 1 KiB"):
        folder = bench.folder / "files"
        folder.mkdir(exist_ok=True)
        data = many_files(folder / "data", count)
        workspace(folder, data="data")
        cases = [
            Case(name="md5sum", command=over(data, "md5sum"), folder=folder),
            *peers.git_add(bench, data),
            *peers.dvc_add(bench, data),
            start,
            first_lock(bench, NAME, folder),
        ]
        bench.group(title, cases, Budget(case=NAME, says="the whole process", limit=lambda _: 2.5))


if __name__ == "__main__":
    main()
