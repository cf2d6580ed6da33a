"""`model.lock` as bytes: write a lock, read it again.

Written so that it reviews and merges well: sorted, one entry a line, a blank line and a full
header before every table. What a merge by lines can combine wrongly does not parse: keys twice,
tables without entries, an environment whose content does not give its name, a name that nothing
bears.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from modelbuild.errors import InvalidInputError
from modelbuild.spec import lock_values as values
from modelbuild.spec.canonical import Json
from modelbuild.spec.lock import (
    Claim,
    Lock,
    LockedData,
    LockedEnvironment,
    LockedFile,
    LockedRecipe,
    LockedSeeds,
    LockedStage,
)
from modelbuild.spec.lock_probes import probe_lines, read_probes
from modelbuild.spec.lock_tables import read_class, read_environment, read_recipe
from modelbuild.spec.lock_values import LockText, Table
from modelbuild.spec.toml_text import toml_table

SCHEMA = 1
_FIRST_LINE = "# Written by `modelbuild lock`. Commit it and review it; do not edit it."
_SECTIONS = ("environments", "recipes", "classes", "probes")
_HEADER = re.compile(rf"(?P<section>{'|'.join(_SECTIONS)})\.(?P<name>[A-Za-z0-9_-]+)[.\]]")

T = TypeVar("T")


def render_lock(lock: Lock, in_conflict: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The canonical bytes of a lock. `in_conflict` is text in the place of further recipes."""
    lines = [_FIRST_LINE, f"schema = {SCHEMA}"]
    for key, environment in sorted(lock.environments.items()):
        lines += _environment_lines(key, environment)
    for name in sorted({*lock.recipes, *in_conflict}):
        if name in in_conflict:
            lines += in_conflict[name].removesuffix("\n").split("\n")
        else:
            lines += _recipe_lines(name, lock.recipes[name])
    for key, facts in sorted(lock.classes.items()):
        lines += toml_table(["classes", key], dict(sorted(facts.items())))
    for key, probes in sorted(lock.probes.items()):
        lines += probe_lines(key, probes)
    return ("\n".join(lines) + "\n").encode()


def _environment_lines(key: str, environment: LockedEnvironment) -> list[str]:
    path = ["environments", key]
    about: dict[str, Json] = {
        "python": environment.python,
        "platform": environment.platform,
        "backend": environment.backend,
        "base": environment.base if environment.base != "host" else None,
        "interpreters": [str(digest) for digest in sorted(environment.interpreters)],
    }
    packages: dict[str, Json] = {
        wheel.name: {
            "version": wheel.version,
            "file": wheel.filename,
            "sha256": wheel.sha256,
            "bytes": wheel.bytes,
            "licence": wheel.licence,
        }
        for wheel in sorted(environment.wheels, key=lambda wheel: wheel.name)
    }
    distributions: dict[str, Json] = {
        each.name: {
            "version": each.version,
            "digest": str(each.digest),
            "files": each.files,
            "bytes": each.bytes,
            "licence": each.licence,
        }
        for each in environment.distributions
    }
    lines = toml_table(path, about) + toml_table([*path, "packages"], packages)
    return lines + toml_table([*path, "distributions"], distributions)


def recipe_text(name: str, recipe: LockedRecipe) -> str:
    """A recipe's tables as they stand in the lock."""
    return "".join(f"{line}\n" for line in _recipe_lines(name, recipe))


def _recipe_lines(name: str, recipe: LockedRecipe) -> list[str]:
    path = ["recipes", name]
    about: dict[str, Json] = {
        "path": str(recipe.path),
        "environment": recipe.environment,
        "requires": list(recipe.requires),
        "resolver": recipe.resolver,
        "exclude-newer": recipe.exclude_newer,
        "runtime": recipe.runtime,
        "seed": recipe.seed,
        "level": recipe.level.value,
        "allow": list(recipe.allow) or None,
        "tf32": False if recipe.tf32 == "false" else None,
        "content": recipe.content.short,
    }
    tables: dict[str, dict[str, Json]] = {
        "code": {name: _file_entry(file) for name, file in recipe.code.items()},
        "data": {name: _data_entry(data) for name, data in recipe.data.items()},
        "params": dict(recipe.params),
        "hardware": dict(recipe.hardware),
    }
    lines = toml_table(path, about)
    for table, entries in tables.items():
        lines += toml_table([*path, table], dict(sorted(entries.items())))
    for stage_name, stage in sorted(recipe.stages.items()):
        lines += _stage_lines([*path, "stages", stage_name], stage)
    return lines


def _file_entry(file: LockedFile) -> Json:
    return _present(
        digest=str(file.digest), lines=file.lines, executable=True if file.executable else None
    )


def _data_entry(data: LockedData) -> Json:
    return _present(
        digest=str(data.digest),
        file=data.file,
        files=data.files,
        bytes=data.bytes,
        rows=data.rows,
        declared=data.declared or None,
        resolved=data.resolved,
        columns=data.columns,
    )


def _stage_lines(path: list[str], stage: LockedStage) -> list[str]:
    about: dict[str, Json] = {
        "derivation": str(stage.derivation),
        "run": stage.run,
        "reads": stage.reads or None,
        "upstream": {
            name: f"{each.stage} {each.derivation}" for name, each in sorted(stage.upstream.items())
        }
        or None,
        "code": None if stage.code is None else list(stage.code),
    }
    claims = {claim.numeric_class: _claim_entry(claim) for claim in stage.claims}
    seeds = {metric: _seeds_entry(each) for metric, each in sorted(stage.seeds.items())}
    return [
        *toml_table(path, about),
        *toml_table([*path, "claims"], dict(sorted(claims.items()))),
        *toml_table([*path, "seeds"], seeds),
    ]


def _claim_entry(claim: Claim) -> Json:
    return _present(
        derivation=str(claim.derivation),
        output=str(claim.output),
        bytes=claim.bytes,
        parameters=claim.parameters,
        metrics=dict(sorted(claim.metrics.items())) or None,
    )


def _seeds_entry(each: LockedSeeds) -> Json:
    statistics = each.statistics
    entry: dict[str, Json] = {
        "derivation": str(each.derivation),
        "class": each.numeric_class,
        "seeds": statistics.seeds,
        "mean": statistics.mean,
        "deviation": statistics.deviation,
        "low": statistics.low,
        "high": statistics.high,
        "min": statistics.least,
        "max": statistics.most,
    }
    return {**entry, "values": list(each.values)} if each.values else entry


def _present(**entries: Json) -> Json:
    return {key: value for key, value in entries.items() if value is not None}


def parse_lock(data: bytes, path: str = "model.lock") -> Lock:
    """Read a lock, all of it.

    Raises InvalidInputError, with the line where there is one.
    """
    text = LockText(data, path)
    root = Table(text.parse(), (), text)
    _check_schema(root)
    environments = {key: read_environment(key, table) for key, table in root.tables("environments")}
    classes = {key: read_class(key, table) for key, table in root.tables("classes")}
    recipes = {
        name: read_recipe(name, table, environments, classes)
        for name, table in root.tables("recipes")
    }
    probes = {key: read_probes(table) for key, table in root.tables("probes")}
    root.finish()
    lock = Lock(environments=environments, recipes=recipes, classes=classes, probes=probes)
    _check_paths(lock, text)
    _check_upstream(lock, text)
    return lock


def open_lock(data: bytes, path: str = "model.lock", *, mixed: bool = False) -> Lock:
    """The same lock, each recipe, environment, class and its probes read when it is asked for.

    For the commands that need one recipe of many: `tomllib` takes a tenth of a second for a
    megabyte. What no one asks for is not checked; `lock` and `verify` use `parse_lock`. In one
    side of a conflict, recipes are `mixed`: a merge put entries of both sides into them. Raises
    InvalidInputError, now or on access.
    """
    text = LockText(data, path)
    parts = _parts(text)
    if parts is None:
        return parse_lock(data, path)
    environments, recipes, classes, probes = (parts[section] for section in _SECTIONS)

    def read(name: str, table: Table) -> LockedRecipe:
        return read_recipe(name, table, environments, classes, mixed=mixed)

    return Lock(
        environments=_Parts("environments", environments, read_environment, text),
        recipes=_Parts("recipes", recipes, read, text),
        classes=_Parts("classes", classes, read_class, text),
        probes=_Parts("probes", probes, lambda _, table: read_probes(table), text),
    )


def _parts(text: LockText) -> dict[str, dict[str, str]] | None:
    """The text of each entry of each section; None where the writer's layout is lost.

    Every line that could begin a table, or a string that could hold such a line, must be as the
    writer puts it. Then the tables below one name, read alone, say the same as in the whole.
    """
    content = text.checked()
    if not _as_written(content):
        return None
    preamble, *tables = content.split("\n\n[")
    parts: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for table in tables:
        header = _HEADER.match(table)
        if not header:
            return None
        section = parts[header["section"]]
        section[header["name"]] = f"{section.get(header['name'], '')}[{table}\n"
    root = Table(text.parse(preamble), (), text)
    _check_schema(root)
    root.finish()
    return parts


def _as_written(content: str) -> bool:
    """Whether tables begin after a blank line, and only what is in an array is indented."""
    return (
        not any(unusual in content for unusual in ("\r", "\n\t", '"""', "'''"))
        and content.count("\n[") == content.count("\n\n[")
        and content.count("\n ") == content.count('\n  "')
    )


class _Parts(Mapping[str, T]):
    """A section of a lock, each entry read on first access."""

    def __init__(
        self, section: str, parts: dict[str, str], read: Callable[[str, Table], T], text: LockText
    ) -> None:
        self._section = section
        self._parts = parts
        self._read = read
        self._text = text
        self._done: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._done:
            content = self._text.parse(self._parts[name])[self._section][name]
            table = Table(content, (self._section, name), self._text)
            self._done[name] = self._read(name, table)
        return self._done[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _check_schema(root: Table) -> None:
    schema = root.take("schema", values.count)
    if schema != SCHEMA:
        raise InvalidInputError(
            f"{root.where('schema')}: written by another version of modelbuild",
            facts=[("wanted", f"schema = {SCHEMA}"), ("found", f"schema = {schema}")],
            hint="Update modelbuild.",
        )


def _check_paths(lock: Lock, text: LockText) -> None:
    """Each recipe file has one name."""
    names: dict[PurePosixPath, str] = {}
    for name, recipe in sorted(lock.recipes.items()):
        other = names.setdefault(recipe.path, name)
        if other != name:
            raise text.error(
                ("recipes", name, "path"),
                f"two recipes are locked for {recipe.path}",
                [("found", f"{other}, {name}")],
            )


def _check_upstream(lock: Lock, text: LockText) -> None:
    """Each stage was locked with the stages that it reads as they are here."""
    for name, recipe in lock.recipes.items():
        for stage_name, stage in recipe.stages.items():
            for each in stage.upstream.values():
                there = lock.stage(each.stage)
                if there is None or there.derivation.short != each.derivation:
                    raise text.error(
                        ("recipes", name, "stages", stage_name, "upstream"),
                        f"{each.stage} is not as this stage was locked with: merged wrongly",
                        [
                            ("wanted", each.derivation),
                            ("found", there.derivation.short if there else "no such stage"),
                        ],
                    )
