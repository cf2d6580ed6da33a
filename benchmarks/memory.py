"""Peak memory of the largest process, with data of growing size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from measure import TOOL, Bench, Budget, Case
from workspaces import large_file, many_files, workspace

MARGIN = 16
"""MiB by which the largest data may cost more than the smallest."""


def peaks(bench: Bench, folder: Path) -> tuple[float, float]:
    """Of a first lock and of a first build, both with an empty store."""
    bench.away(bench.store, folder / "model.lock")
    _, lock = bench.run(Case(name="lock", command=[TOOL, "lock"], folder=folder))
    _, build = bench.run(Case(name="build", command=[TOOL, "build", "--no-link"], folder=folder))
    return lock, build


def grow(bench: Bench, what: str, sizes: list[int], make: Callable[[Path, int], Path]) -> None:
    """Measure with data of each size, made at the path that `make` is given."""
    title = f"peak memory with {what}"
    if not bench.wants(title):
        return
    found: dict[str, float] = {}
    for size in sizes:
        folder = bench.folder / f"{what.replace(' ', '-')}-{size}"
        folder.mkdir(exist_ok=True)
        make(folder / "data", size)
        lock, build = peaks(bench, workspace(folder, data="data"))
        found |= {f"lock, {size:,}": lock, f"build, {size:,}": build}
    budget = Budget(
        case=f"lock, {sizes[-1]:,}",
        says=f"constant: the smallest + {MARGIN} MiB",
        limit=lambda medians: medians[f"lock, {sizes[0]:,}"] + MARGIN,
    )
    bench.report(title, "MiB", [found], budget)


def main() -> None:
    bench = Bench(__doc__ or "")
    mebibytes = [bench.scaled(size) for size in (16, 256, 2048)]
    grow(bench, "one file of MiB", mebibytes, large_file)
    grow(
        bench,
        "files of 1 KiB",
        [bench.scaled(size) for size in (1000, 10_000, 100_000)],
        many_files,
    )


if __name__ == "__main__":
    main()
