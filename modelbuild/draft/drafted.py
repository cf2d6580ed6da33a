"""The parts of a recipe while it is drafted, and the words by which options are known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from modelbuild.draft.module_names import Installed
from modelbuild.draft.script import Script
from modelbuild.spec.recipe_fields import NAME
from modelbuild.spec.references import variable_suffix

SEED = re.compile(r"((random|manual|rng|np|torch)[-_])?(seed|random[-_]?state)")
THREADS = re.compile(r"(num[-_]|n[-_]|torch[-_])?threads")
DEVICE = re.compile(r"device")
PLACE = r"(dir|directory|path|folder|file|root|to)"
DATA = re.compile(
    rf"data|dataset|input|inputs|train|(data|dataset|input|inputs|train|training)[-_]?{PLACE}"
    r"|(train|training|input)[-_]?(data|set|csv)|csv|csv[-_]?(file|path)|corpus|text[-_]?file"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What is known beside the script."""

    folder: Path
    """Of the recipe, absolute."""
    workspace: Path
    files: Mapping[str, bytes]
    """Every Python file of the folder."""
    device: str
    """`cpu` or `cuda`."""
    threads: int
    installed: Installed = field(default_factory=Installed)
    """Where the script runs today; nothing where that is not known."""


@dataclass(kw_only=True, slots=True)
class StageDraft:
    """One stage, as it is found."""

    name: str
    command: list[tuple[str, ...]]
    """What stands before the script's arguments, words that belong together together."""
    arguments: list[tuple[str, ...]] = field(default_factory=list)
    """What follows the script, an option with its value together."""
    about_run: str = ""
    """A comment on the command."""
    code: tuple[str, ...] = ()
    """What it sees, where the text of its program does not tell."""
    search: Sequence[str] = ()
    """Folders from which it imports modules of its own, besides its program's."""
    listed: list[str] = field(default_factory=list)
    """Names of data that is not in the command."""
    metrics: str | None = None
    notes: list[str] = field(default_factory=list)
    """What is to be mended before it builds."""


@dataclass(kw_only=True, slots=True)
class Draft:
    """The parts of a recipe, as they are found."""

    script: Script
    device: str
    threads: int
    reached: tuple[str, ...]
    """Paths of the Python files that the script needs."""
    include: tuple[str, ...]
    stages: list[StageDraft]
    seed: int = 0
    data: dict[str, str] = field(default_factory=dict)
    """Name to path, relative to the recipe."""
    outside: dict[str, str] = field(default_factory=dict)
    """Name of data at a location of that name, to the file in it; empty: all of it."""
    params: dict[str, str | int | float | bool] = field(default_factory=dict)
    elsewhere: dict[str, Path] = field(default_factory=dict)
    """Modules of the user's own outside of the recipe's folder, and the folders they are in."""

    @property
    def stage(self) -> StageDraft:
        """The script's."""
        return self.stages[0]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for stage in self.stages for note in stage.notes))

    def data_name(self, path: str) -> str:
        """The name of the table for this path, made where there is none yet."""
        for name, known in self.data.items():
            if known == path:
                return name
        taken = {variable_suffix(each) for each in (*self.data, *self.outside)}
        name = next(
            each for each in _names(path, self.data.values()) if variable_suffix(each) not in taken
        )
        self.data[name] = path
        return name


def _names(path: str, others: Iterable[str]) -> Iterator[str]:
    """`rows` for `rows.train`, then `rows-train`, then numbered ones."""
    file = PurePosixPath(path).name
    stem = plain(file.partition(".")[0]) or "data"
    yield stem
    if file not in {PurePosixPath(each).name for each in others}:
        yield plain(file.replace(".", "-")) or stem
    yield from (f"{stem}-{number}" for number in count(2))


def stage_name(path: str) -> str:
    stem = PurePosixPath(path).stem
    usual = stem.startswith("train") or stem in ("main", "__main__", "run")
    return "train" if usual or not NAME.fullmatch(stem) else stem


def mentions_cuda(script: Script) -> bool:
    return any(literal.text.partition(":")[0] == "cuda" for literal in script.literals)


def globs(paths: Iterable[str], files: Mapping[str, bytes]) -> list[str]:
    """The paths, those that fill a folder as one glob."""
    chosen = set(paths)
    whole: list[str] = []
    for path in sorted(chosen):
        folder, slash, _ = path.partition("/")
        inside = {each for each in files if each.startswith(f"{folder}/")}
        if slash and len(inside) > 1 and inside <= chosen:
            whole.append(f"{folder}/**/*.py")
            chosen -= inside
    return [*sorted(chosen), *whole]


def plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
