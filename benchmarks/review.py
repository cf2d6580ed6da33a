"""What a reviewer waits for: the difference of two locks, and the start of every command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from measure import TOOL, Bench, Budget, Case
from workspaces import built, crowd, workspace

from modelbuild.cli.main import COMMANDS
from modelbuild.spec.lock_file import parse_lock, render_lock


def move_packages(old: Path, new: Path) -> None:
    """The lock with another version of every package."""
    lock = parse_lock(old.read_bytes())
    environments, keys = {}, {}
    for key, environment in lock.environments.items():
        wheels = tuple(
            replace(wheel, version="2.0", filename=f"{wheel.name}-2.0-py3-none-any.whl")
            for wheel in environment.wheels
        )
        moved = replace(environment, wheels=wheels)
        keys[key], environments[moved.key] = moved.key, moved
    recipes = {
        name: replace(recipe, environment=keys[recipe.environment])
        for name, recipe in lock.recipes.items()
    }
    new.write_bytes(render_lock(replace(lock, environments=environments, recipes=recipes)))


def main() -> None:
    bench = Bench(__doc__ or "")
    if bench.wants(title := "diff of two locks of 300 packages, all of them moved"):
        folder = built(bench, workspace(bench.folder / "review"))
        crowd(folder, recipes=1, packages=300)
        move_packages(folder / "model.lock", folder / "new.lock")
        command = [TOOL, "diff", "model.lock", "new.lock", "--markdown"]
        case = Case(name="modelbuild diff", command=command, folder=folder)
        bench.group(title, [case], _at_most(case, 0.2))
    for name in COMMANDS:
        if bench.wants(title := f"start of modelbuild {name}"):
            case = Case(name=name, command=[TOOL, name, "--help"], folder=bench.folder)
            bench.group(title, [case], _at_most(case, 0.15))


def _at_most(case: Case, seconds: float) -> Budget:
    return Budget(case=case.name, says="the whole process", limit=lambda _: seconds)


if __name__ == "__main__":
    main()
