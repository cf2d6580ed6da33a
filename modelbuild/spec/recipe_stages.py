"""The `[stages.NAME]` tables of a recipe, and the order in which they run."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush

from modelbuild.spec.processes import launched
from modelbuild.spec.recipe import Stage
from modelbuild.spec.recipe_fields import Table, describe, listing, nearest, printable
from modelbuild.spec.recipe_hardware import COUNTS
from modelbuild.spec.recipe_paths import code_glob, inner_path
from modelbuild.spec.references import references

_GROUPS = ("data", "params", "stages")
_SINGLE = ("out", "seed", "threads")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Names = Mapping[str, Collection[str]]
"""The names that a stage may refer to: `data`, `params`, `stages`."""


def read_stages(
    tables: Table, data: Collection[str], params: Collection[str], processes: int
) -> dict[str, Stage]:
    """In an order in which each stage comes after those it reads, else as in the file.

    `processes` are those of a stage that says nothing about them.
    """
    names: Names = {"data": data, "params": params, "stages": tables.values}
    stages = {}
    for name, table in tables.tables('A stage is a table: [stages.NAME], then run = ["..."]'):
        tables.check_name(name, name, "a stage")
        stages[name] = _read_stage(name, table, names, processes)
    if not stages:
        tables.fail(
            "",
            "the recipe has no stage",
            wanted='[stages.train] with run = ["python", "train.py"]',
            found="nothing",
        )
    return _ordered(tables, stages)


def _read_stage(name: str, table: Table, names: Names, processes: int) -> Stage:
    table.only(("run", "metrics", "curves", "code", "data", "params", "stages", "env", "processes"))
    run = _read_run(table)
    env = _read_env(table)
    metrics = table.text("metrics", None)
    if metrics is not None:
        inner_path(table, "metrics", metrics, "the output")
    code = table.texts("code", None)
    for glob in code or ():
        code_glob(table, "code", glob)
    used = _listed(table, names)
    for argument in run:
        _add_references(table, "run", argument, names, used)
    for variable, value in env.items():
        _add_references(table.table("env"), variable, value, names, used)
    if name in used["stages"]:
        table.fail(
            "run",
            f"stage '{name}' reads its own output",
            wanted="{out}, or another stage",
            found=f"stages.{name}",
        )
    return Stage(
        name=name,
        run=run,
        metrics=metrics,
        curves=_read_curves(table),
        code=code,
        data=tuple(sorted(used["data"])),
        params=tuple(sorted(used["params"])),
        stages=tuple(sorted(used["stages"])),
        env=env,
        processes=_read_processes(table, run, processes),
    )


def _read_curves(table: Table) -> tuple[str, ...]:
    """One file as a string, or a list of them."""
    value = table.values.get("curves")
    if value is not None and not isinstance(value, str | list):
        table.wrong_type("curves", "a string or a list of strings", value)
    files = (table.text("curves", ""),) if isinstance(value, str) else table.texts("curves", ())
    for file in files:
        inner_path(table, "curves", file, "the output")
    return tuple(dict.fromkeys(files))


def _read_run(table: Table) -> tuple[str, ...]:
    table.require("run", 'run = ["python", "train.py"]')
    run = table.texts("run", (), _as_list(table.values["run"]))
    if not run or not run[0]:
        table.fail(
            "run",
            f"{table.named('run')} has no command",
            wanted='a list of strings as in ["python", "train.py"]',
            found="an empty list" if not run else "an empty string as the command",
        )
    return run


def _as_list(command: object) -> str | None:
    """How a command line that was written as one string is written as a list."""
    if not isinstance(command, str):
        return None
    import json
    import shlex

    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return f"As a list: run = {json.dumps(words)}"


def _read_processes(table: Table, run: Sequence[str], default: int) -> int:
    processes = table.integer("processes", default, COUNTS)
    try:
        launched(run, processes)
    except ValueError as error:
        table.fail(
            "run",
            f"{table.named('run')} can't be started as {processes} processes",
            wanted='["python", "train.py", ...] or ["python", "-m", "train", ...]',
            found=str(error),
            hint="modelbuild starts the processes, by torchrun. For a command that is one process, "
            "or starts them itself: processes = 1 in the stage.",
        )
    return processes


def _read_env(table: Table) -> dict[str, str]:
    env = table.table("env", 'A table: env = { NAME = "value" }')
    found = {}
    for name in env.values:
        if not _VARIABLE.fullmatch(name) or name.startswith("MODELBUILD_"):
            env.fail(
                name,
                "an environment variable has a name that can't be used",
                wanted="letters, digits and '_', not MODELBUILD_..., the first not a digit",
                found=describe(name),
            )
        found[name] = env.text(name, "")
    return found


def _listed(table: Table, names: Names) -> dict[str, set[str]]:
    """What the stage names in its lists."""
    found = {}
    for group in _GROUPS:
        listed = table.texts(group, ())
        for name in listed:
            _check_known(table, group, f"{group}.{name}", names)
        found[group] = set(listed)
    return found


def _add_references(
    table: Table, key: str, argument: str, names: Names, used: dict[str, set[str]]
) -> None:
    try:
        found = references(argument)
    except ValueError as error:
        table.fail(
            key,
            f"{table.named(key)} has {error}",
            wanted="{NAME}, or {{ and }} for the characters themselves",
            found=printable(argument),
        )
    for reference in found:
        if reference not in _SINGLE:
            _check_known(table, key, reference, names)
            group, _, name = reference.partition(".")
            used[group].add(name)


def _check_known(table: Table, key: str, reference: str, names: Names) -> None:
    """`reference` is `GROUP.NAME`."""
    group, _, name = reference.partition(".")
    if name in names.get(group, ()):
        return
    known = [f"{group}.{name}" for group in _GROUPS for name in names[group]]
    in_group = [word for word in known if word.startswith(f"{group}.")]
    table.fail(
        key,
        f"{table.named(key)} names '{printable(reference)}', which is not defined",
        wanted=_wanted(group, in_group, known),
        found=printable(reference),
        hint=_meant(reference, in_group, known),
    )


def _wanted(group: str, in_group: Sequence[str], known: Sequence[str]) -> str:
    if in_group:
        return f"one of {listing(in_group)}"
    if group in _GROUPS:
        return f"a name that is defined; the recipe has no [{group}]"
    return f"one of {listing((*_SINGLE, *known))}"


def _meant(reference: str, in_group: Sequence[str], known: Sequence[str]) -> str | None:
    below = [word for word in in_group if word.startswith(f"{reference}.")]
    same_name = [word for word in known if word.partition(".")[2] == reference]
    similar = nearest(reference, in_group) or nearest(reference, (*_SINGLE, *known))
    found = next(iter((*below, *same_name)), similar)
    return f"Did you mean '{printable(found)}'?" if found else None


def _ordered(tables: Table, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Kahn's algorithm; of the stages that are ready, the first in the file is next."""
    names = list(stages)
    order = {name: index for index, name in enumerate(names)}
    missing = {name: len(stage.stages) for name, stage in stages.items()}
    readers: dict[str, list[str]] = {name: [] for name in names}
    for name, stage in stages.items():
        for read in stage.stages:
            readers[read].append(name)
    ready = [order[name] for name in names if not missing[name]]
    found: dict[str, Stage] = {}
    while ready:
        name = names[heappop(ready)]
        found[name] = stages[name]
        for reader in readers[name]:
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, order[reader])
    if len(found) < len(stages):
        _refuse_cycle(tables, stages, [name for name in names if name not in found])
    return found


def _refuse_cycle(tables: Table, stages: Mapping[str, Stage], stuck: Sequence[str]) -> None:
    """Every stage in `stuck` reads one that is in it, so following them comes around."""
    name = stuck[0]
    walk: list[str] = []
    while name not in walk:
        walk.append(name)
        name = next(read for read in stages[name].stages if read in stuck)
    cycle = [*walk[walk.index(name) :], name]
    first = min(cycle, key=list(stages).index)
    turn = cycle.index(first)
    cycle = [*cycle[turn:-1], *cycle[:turn], first]
    tables.fail(
        first,
        "the stages form a cycle",
        wanted="an order in which each stage comes after those it reads",
        found=" reads ".join(cycle),
    )
