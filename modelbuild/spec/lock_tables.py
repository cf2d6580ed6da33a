"""The tables of `model.lock`, read into its dataclasses. If one of these exists, it is valid."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import PurePosixPath

from modelbuild.errors import InvalidInputError
from modelbuild.spec import lock_values as values
from modelbuild.spec.lock import (
    Claim,
    LockedData,
    LockedDistribution,
    LockedEnvironment,
    LockedFile,
    LockedRecipe,
    LockedSeeds,
    LockedStage,
    LockedWheel,
    Upstream,
)
from modelbuild.spec.lock_values import Table
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.spec.recipe import Level
from modelbuild.spec.seed_statistics import SeedStatistics


def read_environment(key: str, table: Table) -> LockedEnvironment:
    environment = LockedEnvironment(
        python=table.take("python", values.string),
        platform=table.take("platform", values.string),
        backend=table.take("backend", values.string),
        # The one array that may hold its entries twice or in any order: two branches that
        # accept another interpreter each are both right.
        interpreters=tuple(sorted(set(table.take("interpreters", values.digests)))),
        wheels=tuple(_wheel(name, wheel) for name, wheel in sorted(table.tables("packages"))),
        base=table.maybe("base", values.string) or "host",
        distributions=tuple(
            _distribution(name, each) for name, each in sorted(table.tables("distributions"))
        ),
    )
    table.finish()
    if environment.key != key:
        raise table.error(
            None,
            "the environment's content does not match its name",
            facts=[("name", key), ("content", environment.key)],
        )
    return environment


def _wheel(name: str, table: Table) -> LockedWheel:
    wheel = LockedWheel(
        name=name,
        version=table.take("version", values.string),
        filename=table.take("file", values.file_name),
        sha256=table.take("sha256", values.sha256),
        bytes=table.take("bytes", values.count),
        licence=table.take("licence", values.string),
    )
    table.finish()
    return wheel


def _distribution(name: str, table: Table) -> LockedDistribution:
    distribution = LockedDistribution(
        name=name,
        version=table.take("version", values.string),
        digest=table.take("digest", values.digest),
        files=table.take("files", values.count),
        bytes=table.take("bytes", values.count),
        licence=table.take("licence", values.string),
    )
    table.finish()
    return distribution


def read_recipe(
    name: str,
    table: Table,
    environments: Container[str],
    classes: Container[str],
    *,
    mixed: bool = False,
) -> LockedRecipe:
    """`environments` and `classes` are the names that the recipe may use.

    `mixed`: its entries need not be of one lock.
    """
    code = {path: _file(file) for path, file in table.tables("code", values.relative_path)}
    content = table.take("content", values.string)
    recipe = LockedRecipe(
        name=name,
        path=PurePosixPath(table.take("path", values.relative_path)),
        environment=table.take("environment", values.string),
        requires=table.take("requires", values.sorted_strings),
        resolver=table.take("resolver", values.string),
        exclude_newer=table.maybe("exclude-newer", values.string),
        runtime=table.take("runtime", values.string),
        seed=table.take("seed", values.integer),
        level=Level(table.take("level", values.level)),
        allow=table.maybe("allow", values.sorted_strings) or (),
        tf32=table.maybe("tf32", values.tf32) or "script",
        code=code,
        data={key: _data(data) for key, data in table.tables("data")},
        params=dict(table.entries("params", values.param)),
        hardware=dict(table.entries("hardware", values.string_or_integer)),
        stages={key: _stage(stage, code, classes) for key, stage in table.tables("stages")},
    )
    table.finish()
    if recipe.environment not in environments:
        raise table.error(
            "environment",
            "names an environment that the lock does not have",
            [("found", recipe.environment)],
        )
    if not mixed and content != recipe.content.short:
        raise table.error(
            "content",
            "not the digest of this recipe's entries: they were edited, or merged wrongly",
            [("wanted", recipe.content.short), ("found", content)],
        )
    return recipe


def _file(table: Table) -> LockedFile:
    file = LockedFile(
        digest=table.take("digest", values.digest),
        lines=table.take("lines", values.count),
        executable=table.maybe("executable", values.boolean) or False,
    )
    table.finish()
    return file


def _data(table: Table) -> LockedData:
    data = LockedData(
        digest=table.take("digest", values.digest),
        file=table.maybe("file", values.file_name),
        files=table.take("files", values.count),
        bytes=table.take("bytes", values.count),
        declared=table.maybe("declared", values.string) or "",
        resolved=table.maybe("resolved", values.string),
        rows=table.maybe("rows", values.count),
        columns=table.maybe("columns", values.strings),
    )
    table.finish()
    return data


def _stage(table: Table, code: Mapping[str, LockedFile], classes: Container[str]) -> LockedStage:
    stage = LockedStage(
        derivation=table.take("derivation", values.digest),
        run=table.take("run", values.strings),
        reads=table.maybe("reads", values.sorted_strings) or (),
        upstream={
            name: Upstream(stage=stage, derivation=derivation)
            for name, (stage, derivation) in table.entries("upstream", values.upstream)
        },
        code=table.maybe("code", values.sorted_strings),
        claims=tuple(_claim(key, claim) for key, claim in sorted(table.tables("claims"))),
        seeds={key: _seeds(seeds) for key, seeds in sorted(table.tables("seeds"))},
    )
    table.finish()
    used = [("claims", claim.numeric_class) for claim in stage.claims]
    used += [("seeds", each.numeric_class) for each in stage.seeds.values()]
    for name, numeric_class in used:
        if numeric_class not in classes:
            raise table.error(
                name,
                "names a numeric class that the lock does not have",
                [("found", numeric_class)],
            )
    for path in stage.code or ():
        if path not in code:
            raise table.error(
                "code", "names a file that the recipe's code does not have", [("found", path)]
            )
    return stage


def _claim(key: str, table: Table) -> Claim:
    claim = Claim(
        numeric_class=key,
        derivation=table.take("derivation", values.digest),
        output=table.take("output", values.digest),
        bytes=table.take("bytes", values.count),
        parameters=table.maybe("parameters", values.count),
        metrics=dict(table.entries("metrics", values.number)),
    )
    table.finish()
    return claim


def _seeds(table: Table) -> LockedSeeds:
    seeds = LockedSeeds(
        derivation=table.take("derivation", values.digest),
        numeric_class=table.take("class", values.string),
        statistics=SeedStatistics(
            seeds=table.take("seeds", values.count),
            mean=table.take("mean", values.number),
            deviation=table.take("deviation", values.number),
            low=table.take("low", values.number),
            high=table.take("high", values.number),
            least=table.take("min", values.number),
            most=table.take("max", values.number),
        ),
        values=table.maybe("values", values.numbers) or (),
    )
    table.finish()
    found, statistics = seeds.values, seeds.statistics
    expected = (statistics.seeds, statistics.least, statistics.most)
    if found and (len(found), min(found), max(found)) != expected:
        raise table.error("values", "not those that the rest of the line is of: edited")
    return seeds


def read_class(key: str, table: Table) -> dict[str, str]:
    if not table.content:
        raise table.error(None, "a table without entries")
    facts = {name: table.take(name, values.string) for name in table.content}
    found = NumericClass(facts).key
    if found != key:
        where = table.where(next(iter(facts)))
        raise InvalidInputError(
            f"{where}: the facts of the numeric class do not match its name",
            facts=[("wanted", key), ("found", found)],
            hint="They were edited or merged wrongly. Take them from the commit that added them.",
        )
    return facts
