"""What the scripts measure on: real recipes with an empty environment, and generated data."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from measure import TOOL, Bench, Command

from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedWheel
from modelbuild.spec.lock_file import parse_lock, render_lock

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from small_recipes import small_recipe

MIB = 2**20
BUILD: Command = [TOOL, "build", "--no-link", "--quiet"]
STAGE = """
[stages.sNUMBER]
run = ["python", "step.py", "INPUT", "{out}/x"]
"""
STEP = """\
import os, sys

with open(sys.argv[2], "w") as file:
    file.write(str(os.path.getsize(sys.argv[1])))
"""


def recipe(name: str, data: str, stages: int) -> str:
    """Each stage reads what the one before it wrote."""
    tables = [f'[data.start]\npath = "{data}"']
    for number in range(stages):
        source = f"{{stages.s{number - 1}}}/x" if number else "{data.start}"
        tables.append(STAGE.replace("NUMBER", str(number)).replace("INPUT", source))
    return small_recipe(name, *tables)


def workspace(folder: Path, *, data: str = "start", stages: int = 1) -> Path:
    """A workspace of one recipe, whose data must be there before it is built."""
    folder.mkdir(exist_ok=True)
    (folder / "model.lock").unlink(missing_ok=True)
    (folder / "recipe.toml").write_text(recipe(folder.name, data, stages))
    (folder / "step.py").write_text(STEP)
    if not (folder / data).exists():
        (folder / data).write_text("0")
    return folder


def built(bench: Bench, folder: Path) -> Path:
    """Build the workspace's recipe, so that from now on there is nothing to do."""
    bench.set_up(BUILD, folder)
    settle(bench, folder)
    return folder


def settle(bench: Bench, folder: Path) -> None:
    """Let files age: as in git's index, what changed moments ago is not trusted yet."""
    time.sleep(2.5)
    bench.set_up(BUILD, folder)


def crowd(folder: Path, *, recipes: int, packages: int) -> None:
    """Add recipes to a workspace, each locked with an environment of its own."""
    path = folder / "model.lock"
    lock = parse_lock(path.read_bytes())
    (own,) = lock.recipes.values()
    environments, others = dict(lock.environments), dict(lock.recipes)
    for number in range(recipes):
        name = f"other-{number}"
        environment = replace(lock.environments[own.environment], wheels=_wheels(name, packages))
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "recipe.toml").write_text(recipe(name, "../start", 1))
        (folder / name / "step.py").write_text(STEP)
        place = PurePosixPath(name, "recipe.toml")
        environments[environment.key] = environment
        others[name] = replace(own, name=name, path=place, environment=environment.key)
    path.write_bytes(render_lock(replace(lock, environments=environments, recipes=others)))


def _wheels(seed: str, count: int) -> tuple[LockedWheel, ...]:
    names = [f"package-{number:03}" for number in range(count)]
    return tuple(
        LockedWheel(
            name=name,
            version="1.2.3",
            filename=f"{name.replace('-', '_')}-1.2.3-py3-none-any.whl",
            sha256=Digest.of(f"{seed} {name}".encode()).hex,
            bytes=123456,
            licence="MIT",
        )
        for name in names
    )


def large_file(path: Path, mebibytes: int) -> Path:
    if not path.exists() or path.stat().st_size != mebibytes * MIB:
        numbers = random.Random(mebibytes)
        with path.open("wb") as file:
            for _ in range(mebibytes):
                file.write(numbers.randbytes(MIB))
    return path


def many_files(folder: Path, count: int, size: int = 1024) -> Path:
    """`count` files in folders of a thousand."""
    if folder.exists() and sum(1 for _ in folder.glob("*/*")) == count:
        return folder
    numbers = random.Random(count)
    for number in range(count):
        path = folder / f"d{number // 1000:03}" / f"f{number % 1000:03}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbers.randbytes(size))
    return folder
