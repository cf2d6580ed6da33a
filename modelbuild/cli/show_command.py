"""`modelbuild show`"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from modelbuild.build.outputs import find_output
from modelbuild.cli.arguments import Parser
from modelbuild.cli.render import number, seconds, size
from modelbuild.cli.targets import lookup, workspace_of
from modelbuild.errors import ModelbuildError
from modelbuild.review.provenance import Provenance, provenance
from modelbuild.review.runs import Run, run_named, runs
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.spec.canonical import Json
from modelbuild.spec.toml_text import toml_value
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "show",
        "Show everything that went into one output, to the last package, as a tree: of a recipe's\n"
        "stage as it is built, of a run by its id, or of a path in the store or a link to one.",
        "modelbuild show digits:evaluate",
    )
    made.add_argument("target", metavar="RECIPE[:STAGE]|ID|PATH")
    made.add_argument("--json", action="store_true", help="print the tree as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    store = Store.open()
    found = provenance(_run(options.target, store), read_lock(workspace_of(None)), store)
    if options.json:
        import json

        print(json.dumps(_to_json(found), indent=2))
    else:
        print("\n".join(_lines(found, store, set())))
    return 0


def _run(target: str, store: Store) -> Run:
    path = Path(target).resolve()
    objects = (store.root / "objects").resolve()
    if objects in path.parents:
        return run_named(path.relative_to(objects).parts[0].partition("-")[0], store)
    known = read_lock(workspace_of(None)).recipes
    if target.partition(":")[0] not in known and not Path(target.partition(":")[0]).exists():
        return run_named(target, store)
    identity, realisation = find_output(lookup(target))
    if realisation is None:
        raise ModelbuildError(f"{identity} is not built here", hint="To build it: modelbuild build")
    return next(each for each in runs(store) if each.realisation == realisation)


Branch = tuple[str, list[str]]
"""A line of the tree, and those below it."""


def _lines(found: Provenance, store: Store, told: set[str]) -> Iterator[str]:
    """`told` are the environments whose packages are listed already."""
    run, realisation = found.run, found.run.realisation
    yield f"{realisation.name}  {realisation.path(store)}"
    about = [
        f"run {run.id}, built {run.built:%Y-%m-%d %H:%M} UTC in"
        f" {seconds(realisation.resources.wall_seconds)}, isolation {realisation.isolation},"
        f" numeric class {realisation.numeric_class}",
        f"output {realisation.output.short}, {realisation.files} files, {size(realisation.bytes)}",
    ]
    metrics = ", ".join(f"{name} {number(value)}" for name, value in realisation.metrics.items())
    about += [f"metrics {metrics}"] if metrics else []
    about += [f"note: {note}" for note in realisation.notes]
    branches: list[Branch] = [(line, []) for line in about]
    branches += _inputs(found, told)
    for name, each in found.upstream.items():
        if isinstance(each, Provenance):
            first, *below = _lines(each, store, told)
        else:
            first, below = f"{each}, whose run is not on record here", []
        branches.append((f"{name}: {first}", below))
    yield from _tree(branches)


def _tree(branches: Sequence[Branch]) -> Iterator[str]:
    for index, (title, below) in enumerate(branches):
        last = index == len(branches) - 1
        yield f"{'└─' if last else '├─'} {title}"
        yield from (f"{'  ' if last else '│ '} {line}" for line in below)


def _inputs(found: Provenance, told: set[str]) -> Iterator[Branch]:
    inputs = found.run.inputs
    if not inputs:
        yield "what went in is not on record", []
        return
    command = inputs.get("run")
    if isinstance(command, Sequence):
        yield f"command: {shlex.join(str(word) for word in command)}", []
    for title, values in (
        ("parameters", _values(inputs.get("params"))),
        ("hardware", _values(inputs.get("hardware"))),
        ("code", _digests(inputs.get("code"))),
        ("data", _data(inputs.get("data"), found)),
    ):
        if lines := list(values):
            yield title, lines
    yield f"seed: {inputs.get('seed')}", []
    yield from ((line, []) for line in _determinism(inputs))
    yield f"bootstrap: {inputs.get('runtime')}", []
    environment = str(inputs.get("environment"))[:15]
    if environment in told:
        yield f"environment {environment}, as above", []
    else:
        told.add(environment)
        yield f"environment {environment}", list(_packages(found))


def _determinism(inputs: Mapping[str, Json]) -> Iterator[str]:
    variables, allow = inputs.get("variables"), inputs.get("allow")
    yield f"tf32: {inputs.get('tf32')}"
    if isinstance(variables, Mapping):
        yield f"mkl: {variables.get('MODELBUILD_MKL')}"
    if isinstance(allow, Sequence) and allow:
        yield f"allow: {', '.join(map(str, allow))}"


def _values(table: Json) -> Iterator[str]:
    if isinstance(table, Mapping):
        yield from (f"{k} = {toml_value(v)}" for k, v in table.items() if v is not None)


def _digests(table: Json) -> Iterator[str]:
    if isinstance(table, Mapping):
        yield from (f"{name}  {_digest(each)}" for name, each in table.items())


def _digest(entry: Json) -> str:
    return str(entry[0])[:15] if isinstance(entry, Sequence) else str(entry)


def _data(table: Json, found: Provenance) -> Iterator[str]:
    """With its extent, where the lock still has the same data."""
    for line in _digests(table):
        name = line.partition("  ")[0]
        data = found.recipe.data.get(name) if found.recipe else None
        if data is None or not line.endswith(str(data.digest)[:15]):
            yield line
            continue
        rows = "" if data.rows is None else f", {data.rows:,} rows"
        yield f"{line}, {size(data.bytes)}{rows}: {data.resolved or data.declared}"


def _packages(found: Provenance) -> Iterator[str]:
    environment = found.environment
    if environment is None:
        yield "its packages are not in this workspace's lock"
        return
    yield f"python {environment.python}, {environment.platform}"
    for wheel in environment.wheels:
        yield f"{wheel.name} {wheel.version}  sha256:{wheel.sha256[:12]}  {wheel.licence}"
    for each in environment.distributions:
        yield f"{each.name} {each.version}  {str(each.digest)[:15]}  {each.licence}, of the base"


def _to_json(found: Provenance) -> dict[str, object]:
    realisation = found.run.realisation
    environment = found.environment
    return {
        "id": found.run.id,
        "stage": realisation.name,
        "built": found.run.built.isoformat(timespec="seconds"),
        "derivation": str(realisation.derivation),
        "resolved": str(realisation.resolved),
        "output": str(realisation.output),
        "metrics": dict(realisation.metrics),
        "isolation": realisation.isolation,
        "class": realisation.numeric_class,
        "inputs": dict(found.run.inputs),
        "packages": None
        if environment is None
        else {
            **{wheel.name: [wheel.version, wheel.sha256] for wheel in environment.wheels},
            **{each.name: [each.version, str(each.digest)] for each in environment.distributions},
        },
        "upstream": {
            name: _to_json(each) if isinstance(each, Provenance) else str(each)
            for name, each in found.upstream.items()
        },
    }
