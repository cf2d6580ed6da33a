"""What the author wrote: one recipe, parsed. If one of these exists, it is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TypeAlias

from modelbuild.spec.globs import has_wildcard
from modelbuild.spec.logins import split_query

ParamValue: TypeAlias = "str | int | float | bool | tuple[ParamValue, ...]"


class Level(StrEnum):
    """How far an output promises to come out the same."""

    BITWISE = "bitwise"
    FUNCTIONAL = "functional"
    RECORDED = "recorded"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """`[environment]`: which Python and which packages."""

    python: str
    """`3.11` or an exact `3.11.7`."""
    packages: tuple[str, ...] | None = None
    """Requirements, as written; exactly one of packages, project and requirements is set."""
    project: str | None = None
    """Path of a pyproject.toml, relative to the recipe."""
    extras: tuple[str, ...] = ()
    requirements: str | None = None
    """Path of a requirements file, relative to the recipe."""
    resolver: str = "uv"
    """`uv` or `pip-tools`."""
    platform: str = "x86_64-manylinux_2_28"
    from_source: tuple[str, ...] = ()
    """Normalised names of packages that may be built from an sdist."""
    exclude_newer: str | None = None
    """RFC 3339 date or time; distributions uploaded later are not seen."""
    base: str = "host"


@dataclass(frozen=True, kw_only=True, slots=True)
class PathData:
    """A file, a folder, or a glob, relative to the recipe."""

    path: str

    @property
    def is_glob(self) -> bool:
        return has_wildcard(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocationData:
    """A name that each user maps to a folder in the user's configuration."""

    location: str
    path: str | None = None
    """A file or folder below the location; None: the whole of it."""
    folder: bool = False
    """Whether `path` is a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlData:
    """A file fetched over http or https; archives are unpacked."""

    url: str
    sha256: str | None = None
    unpack: bool | None = None
    """None: unpack what is named `.tar`, `.tar.*`, `.tgz` or `.zip`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageData:
    """A file or a folder inside the wheel of one of the environment's packages."""

    package: str
    """Normalised name."""
    path: str
    """Of the file or folder, as in the wheel."""
    folder: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeData:
    """The output of a stage of another recipe of the workspace."""

    recipe: str
    stage: str | None = None
    """None: that recipe's last stage."""


def declaration(data: Data) -> str:
    """One line for the lock, without credentials: what the recipe says about a data table."""
    match data:
        case PathData(path=path):
            return f"path {path}"
        case LocationData(location=location, path=path, folder=folder):
            return f"location {location}" + (f" {path}" if path else "") + "/" * folder
        case UrlData(url=url, sha256=sha256, unpack=unpack):
            words = [f"url {split_query(url)[0]}"]
            words += [f"sha256:{sha256}"] if sha256 else []
            words += [] if unpack is None else [f"unpack={str(unpack).lower()}"]
            return " ".join(words)
        case PackageData(package=package, path=path):
            return f"package {package} {path}"
        case RecipeData(recipe=recipe, stage=stage):
            return f"recipe {recipe}" + (f":{stage}" if stage else "")


Data: TypeAlias = PathData | LocationData | UrlData | PackageData | RecipeData


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """`[hardware]`: what the numerics are pinned to, and what must be there."""

    device: Device = Device.CPU
    threads: int = 1
    cpu: str = "x86-64-v3"
    """`x86-64-v2`, `x86-64-v3`, `x86-64-v4` or `native`."""
    mkl: str = "patched"
    """`patched`: its vendor check answers yes, unless `cpu` is native; `unchanged`: left alone."""
    gpu: str | None = None
    """Glob over the names that the driver reports."""
    gpus: int = 0
    gpu_memory_bytes: int | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Determinism:
    """`[determinism]`: the seed and the level that is promised."""

    seed: int = 0
    level: Level = Level.BITWISE
    tf32: str = "script"
    """`script`: the author's choice; `false`: off, for parity between GPU types."""
    allow: tuple[str, ...] = ()
    """Names of non-deterministic operations that the recipe accepts."""
    trace_every: int = 1
    """Gradients and parameters are recorded in every so many steps; 0: nothing is recorded. It is
    no part of a derivation: no bit depends on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """`[stages.NAME]`: one command with declared inputs and one output folder."""

    name: str
    run: tuple[str, ...]
    """The arguments as written, `{...}` not yet replaced."""
    metrics: str | None = None
    """A JSON file in the output folder."""
    curves: tuple[str, ...] = ()
    """JSON Lines or CSV files in the output folder: what `modelbuild report` draws. They are no
    part of a derivation."""
    code: tuple[str, ...] | None = None
    """Globs over the recipe's code; None: what the command's script reaches by imports."""
    data: tuple[str, ...] = ()
    """Every data table that the stage sees: named in `run` or `env`, or listed."""
    params: tuple[str, ...] = ()
    """Every parameter that the stage sees, in dotted form, likewise."""
    stages: tuple[str, ...] = ()
    """Every stage of this recipe whose output it reads, likewise."""
    env: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1
    """How many times the command is started at once; by default as `[hardware]` says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a metric may lie from the claimed one, to either side."""

    abs: float = 0.0
    rel: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """`[verify.predictions.STAGE]`: what the model says to inputs that never change."""

    file: str
    """In the stage's output: arrays, or CSV or JSON with numbers."""
    tolerance: Tolerance
    """How far each number may lie from the first one, to either side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One recipe.toml: one environment, one or more stages."""

    path: PurePosixPath
    """Of the recipe file, relative to the workspace."""
    name: str
    description: str
    environment: Environment
    code: tuple[str, ...]
    """Globs relative to the recipe."""
    data: Mapping[str, Data]
    params: Mapping[str, ParamValue]
    """Nested tables are flattened to dotted names."""
    hardware: Hardware
    determinism: Determinism
    stages: Mapping[str, Stage]
    """In an order in which every stage comes after those it reads."""
    tolerances: Mapping[str, Tolerance]
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    """By stage."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Line of each dotted key, from 1; for messages."""

    @property
    def folder(self) -> PurePosixPath:
        return self.path.parent

    @property
    def last_stage(self) -> str:
        return list(self.stages)[-1]

    def where(self, key: str) -> str:
        """`FILE:LINE` of a dotted key, or of the nearest table around it."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            line = self.lines.get(".".join(parts[:end]))
            if line is not None:
                return f"{self.path}:{line}"
        return str(self.path)
