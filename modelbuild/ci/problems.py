"""What does not hold, with the place that a reviewer is shown: a file of the workspace, a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.errors import ModelbuildError, OutOfDateError
from modelbuild.spec.recipe import Recipe

_PLACE = re.compile(r"(.+?):(\d+): (.*)", re.DOTALL)
_DATA = re.compile(r"data '([^']+)' of (.+?)(?: was altered)?$")
_KEYS = {
    "allowed operations": "determinism.allow",
    "code": "code",
    "data": "data",
    "hardware": "hardware",
    "interpreters": "environment.python",
    "level": "determinism.level",
    "packages": "environment",
    "parameters": "params",
    "path": "model",
    "requirements": "environment.packages",
    "seed": "determinism.seed",
    "stages": "stages",
    "stages added or removed": "stages",
    "tf32": "determinism.tf32",
}
"""Where a recipe has what `lock --check` says has moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    path: str
    """Relative to the workspace."""
    line: int
    """From 1."""
    exit_code: int
    summary: str
    """One line, which does not name the place."""
    facts: tuple[tuple[str, str], ...] = ()
    hint: str | None = None

    @classmethod
    def of(cls, error: ModelbuildError, path: str, line: int) -> Problem:
        """Where the message begins with a place of its own, that counts."""
        place = _PLACE.fullmatch(error.summary)
        return cls(
            path=place[1] if place else path,
            line=int(place[2]) if place else line,
            exit_code=error.exit_code,
            summary=place[3] if place else error.summary,
            facts=error.facts,
            hint=error.hint,
        )


def out_of_date(what: str) -> OutOfDateError:
    return OutOfDateError(
        f"model.lock is out of date: {what}", hint="Run modelbuild lock, and commit model.lock."
    )


def unclaimed(recipe: Recipe, stages: Sequence[str]) -> Problem:
    """That nobody built these stages of a recipe as they are locked; at the line of the first."""
    names = ", ".join(f"{recipe.name}:{stage}" for stage in stages)
    error = OutOfDateError(
        f"model.lock has no claim for {names}",
        hint=f"Where it can be built: modelbuild build {recipe.path}, and commit model.lock.",
    )
    return Problem.of(error, str(recipe.path), _line(recipe, f"stages.{stages[0]}"))


def problems_of(error: ModelbuildError, recipe: Recipe) -> Iterator[Problem]:
    """What kept a recipe from being checked, at its place in that recipe.

    Nothing, where it is another recipe's: it is said of that one.
    """
    if isinstance(error, OutOfDateError):
        for name, change in error.facts:
            if name == recipe.name:
                yield from moved(recipe, change)
        return
    data = _DATA.search(error.summary)
    if data and data[2] != str(recipe.path):
        return
    line = _line(recipe, f"data.{data[1]}") if data else 1
    yield Problem.of(error, str(recipe.path), line)


def moved(recipe: Recipe, change: str) -> Iterator[Problem]:
    """`change` as locking says it: `parameters: lr, epochs`. One problem for each line of it."""
    label, _, names = change.partition(": ")
    key = _KEYS.get(label, "")
    keys = [key] if key in ("", "code") else [f"{key}.{name}" for name in names.split(", ")]
    for line in sorted({_line(recipe, each) for each in keys}):
        yield Problem.of(out_of_date(change), str(recipe.path), line)


def _line(recipe: Recipe, key: str) -> int:
    line = recipe.where(key).rpartition(":")[2]
    return int(line) if line.isdecimal() else 1
