"""The lock: for every recipe of the workspace, each input pinned by content, and the claims.

Content only: no timestamp, no host name, no absolute path, no URL of a package index.
`lock_file.py` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import PurePosixPath

from modelbuild.spec.canonical import Json, canonical_digest
from modelbuild.spec.digest import Digest
from modelbuild.spec.probes import Probes
from modelbuild.spec.recipe import Level, ParamValue
from modelbuild.spec.seed_statistics import SeedStatistics

Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedWheel:
    """One package, pinned to one file of it."""

    name: str
    """Normalised."""
    version: str
    filename: str
    sha256: str
    """Of the file as downloaded, before unpacking."""
    bytes: int
    licence: str
    """An SPDX expression where the package states one, else its own words, else `unknown`."""

    @property
    def from_source(self) -> bool:
        return not self.filename.endswith(".whl")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedDistribution:
    """One distribution of the base interpreter, pinned by what is on its disk."""

    name: str
    """Normalised."""
    version: str
    digest: Digest
    """Of the tree of its files, as `environment/distribution.py` arranges them."""
    files: int
    bytes: int
    licence: str
    """As of a wheel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedEnvironment:
    """An exact interpreter and exact packages for one platform."""

    python: str
    """Exact version of CPython."""
    platform: str
    backend: str
    """`cpu`, `cu130`, ..., or `none` where nothing comes in builds for accelerators."""
    wheels: tuple[LockedWheel, ...]
    """Sorted by name."""
    base: str = "host"
    """`interpreter`: the wheels lie on top of distributions that an interpreter brings along."""
    distributions: tuple[LockedDistribution, ...] = ()
    """Those, sorted by name."""
    interpreters: tuple[Digest, ...] = field(default=(), compare=False)
    """Tree digests of the builds of that CPython which are accepted, sorted.

    Not in the environment's digest: which of them ran is in the numeric class, so accepting a
    second machine's build of the same version changes no derivation.
    """

    @property
    def digest(self) -> Digest:
        """Of what decides the environment's content."""
        wheels: list[Json] = [[w.name, w.version, w.filename, w.sha256] for w in self.wheels]
        content: dict[str, Json] = {
            "python": self.python,
            "platform": self.platform,
            "wheels": wheels,
        }
        if self.base != "host":
            content["base"] = self.base
            content["distributions"] = [
                [each.name, each.version, str(each.digest)] for each in self.distributions
            ]
        return canonical_digest(content)

    @property
    def key(self) -> str:
        """Its name in the lock: 12 digits of the digest."""
        return self.digest.hex[:12]

    def wheel(self, name: str) -> LockedWheel | None:
        return next((wheel for wheel in self.wheels if wheel.name == name), None)

    def distribution(self, name: str) -> LockedDistribution | None:
        return next((each for each in self.distributions if each.name == name), None)

    @property
    def packages(self) -> frozenset[str]:
        """The names of all of them."""
        wheels, distributions = self.wheels, self.distributions
        return frozenset([*(each.name for each in wheels), *(each.name for each in distributions)])


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedFile:
    """One file of code."""

    digest: Digest
    lines: int
    executable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedData:
    """One data table, resolved."""

    digest: Digest
    """Of the tree; for a single file, of the tree that holds just that file."""
    file: str | None
    """The file's name where the data is a single file; None for a folder."""
    files: int
    bytes: int
    declared: str = ""
    """The table in the recipe, as `recipe.declaration` writes it: another one is other data."""
    resolved: str | None = None
    """What it came from, in words that are the same on every machine."""
    rows: int | None = None
    """For tables, without the header."""
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """This derivation, on this numeric class, gave this output with these metrics."""

    numeric_class: str
    """Key of the class in the lock."""
    derivation: Digest
    output: Digest
    bytes: int
    parameters: int | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedSeeds:
    """What a metric of a stage came to with the recipe's seed and those after it."""

    derivation: Digest
    """Of the stage with the recipe's own seed."""
    numeric_class: str
    """Key of the class on which all of them were built."""
    statistics: SeedStatistics
    values: tuple[float, ...] = ()
    """With each seed, the recipe's own first, to pair them with those of another derivation;
    empty where an earlier version wrote the line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """A stage whose output another one reads, as it was when that one was locked."""

    stage: str
    """`RECIPE:STAGE`."""
    derivation: str
    """The beginning of its derivation's digest: `b3:` and 12 digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedStage:
    derivation: Digest
    run: tuple[str, ...]
    """The command as the recipe has it."""
    reads: tuple[str, ...] = ()
    """What of the recipe it sees: `data.NAME` and `params.NAME`, sorted."""
    upstream: Mapping[str, Upstream] = field(default_factory=dict)
    """The stages whose outputs it reads, by `stages.NAME` or `data.NAME`."""
    code: tuple[str, ...] | None = None
    """Paths of the code that the stage sees; None: all of the recipe's."""
    claims: tuple[Claim, ...] = ()
    """Sorted by numeric class, at most one for each. Some may be of an older derivation."""
    seeds: Mapping[str, LockedSeeds] = field(default_factory=dict)
    """By metric. Some may be of an older derivation."""

    @property
    def current_claims(self) -> tuple[Claim, ...]:
        return tuple(claim for claim in self.claims if claim.derivation == self.derivation)

    @property
    def current_seeds(self) -> dict[str, LockedSeeds]:
        return {n: each for n, each in self.seeds.items() if each.derivation == self.derivation}

    @property
    def classes(self) -> set[str]:
        """The numeric classes that it names."""
        return {
            *(claim.numeric_class for claim in self.claims),
            *(each.numeric_class for each in self.seeds.values()),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedRecipe:
    name: str
    path: PurePosixPath
    """Of the recipe file, relative to the workspace."""
    environment: str
    """Key of the environment in the lock."""
    requires: tuple[str, ...]
    """The requirements that were resolved, sorted."""
    resolver: str
    runtime: str
    """Version of the bootstrap that runs inside the sandbox."""
    code: Mapping[str, LockedFile]
    data: Mapping[str, LockedData]
    """Without those of kind `recipe`: they are upstream stages."""
    params: Mapping[str, ParamValue]
    seed: int
    hardware: Mapping[str, str | int]
    """`[hardware]` as used, defaults included."""
    stages: Mapping[str, LockedStage]
    exclude_newer: str | None = None
    level: Level = Level.BITWISE
    """What is promised; no part of a derivation."""
    allow: tuple[str, ...] = ()
    """Non-deterministic operations that the recipe accepts, sorted."""
    tf32: str = "script"
    """As in the recipe: `script` or `false`."""

    @property
    def content(self) -> Digest:
        """Of all but claims and statistics: what no merge by lines may put together."""
        content = _plain(self)
        assert isinstance(content, dict)
        if self.tf32 == "script":
            # What the lock does not write where it is the default is not in the digest either.
            del content["tf32"]
        return canonical_digest(content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    environments: Mapping[str, LockedEnvironment] = field(default_factory=dict)
    recipes: Mapping[str, LockedRecipe] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The readable facts of every numeric class that a claim names."""
    probes: Mapping[str, Mapping[str, Probes]] = field(default_factory=dict)
    """Evidence beside a class: what probes gave on it, by the name of their run."""

    def stage(self, name: str) -> LockedStage | None:
        """`name` is `RECIPE:STAGE`."""
        recipe, _, stage = name.partition(":")
        found = self.recipes.get(recipe)
        return found.stages.get(stage) if found else None

    def recipe_at(self, path: PurePosixPath) -> LockedRecipe | None:
        return next((recipe for recipe in self.recipes.values() if recipe.path == path), None)


_RESULTS = frozenset({"claims", "seeds"})


def _plain(value: object) -> Json:
    """As JSON, without results."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Digest | PurePosixPath):
        return str(value)
    if is_dataclass(value):
        names = (each.name for each in fields(value) if each.name not in _RESULTS)
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, float) and not isfinite(value):
        return repr(value)  # JSON has no form for it
    assert value is None or isinstance(value, str | int | float | bool)
    return value
