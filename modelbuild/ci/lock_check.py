"""`lock --check`, recipe by recipe: one that is stale does not hide another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelbuild.ci.problems import Problem, moved, out_of_date, problems_of
from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.locking.lock import LockResult, changes, lock_recipes
from modelbuild.locking.request import LockRequest
from modelbuild.sources.lock_on_disk import read_whole_lock
from modelbuild.sources.source import SourceAbsentError
from modelbuild.sources.workspace import LOCK_NAME, Workspace, unique_by_name
from modelbuild.spec.lock import Lock
from modelbuild.spec.recipe import Recipe, RecipeData
from modelbuild.spec.toml_lines import key_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class LockCheck:
    lock: Lock | None
    """None where it can't be read."""
    current: Mapping[str, Recipe] = field(default_factory=dict)
    """The recipes of which the lock says what they say, by name."""
    unchecked: Mapping[str, str] = field(default_factory=dict)
    """What of a recipe could not be looked at on this machine."""
    problems: tuple[Problem, ...] = ()


def check_lock(request: LockRequest) -> LockCheck:
    """Hold the lock against every recipe of the workspace; fetches and writes nothing.

    `request` is one with `check`.
    """
    workspace = request.workspace
    try:
        lock = read_whole_lock(workspace)
    except ModelbuildError as error:
        return LockCheck(lock=None, problems=(Problem.of(error, LOCK_NAME, 1),))
    problems: list[Problem] = []
    current: dict[str, Recipe] = {}
    unchecked: dict[str, str] = {}
    for recipe in _read(workspace, lock, problems):
        try:
            result = lock_recipes(workspace.with_upstream([recipe], lock), lock, request)
        except (UnavailableError, SourceAbsentError) as error:
            unchecked[recipe.name] = error.summary
            continue
        except ModelbuildError as error:
            problems += problems_of(error, recipe)
            continue
        if result.stale(recipe.name):
            for change in changes(result, recipe.name):
                problems += moved(recipe, change)
            continue
        current[recipe.name] = recipe
        if absent := _absent(recipe, result):
            unchecked[recipe.name] = f"not on this machine: data {', '.join(absent)}"
    problems += _gone(workspace, lock)
    # What one recipe lacks may be found again by those that build on it.
    unique = tuple(dict.fromkeys(problems))
    return LockCheck(lock=lock, current=current, unchecked=unchecked, problems=unique)


def _absent(recipe: Recipe, result: LockResult) -> list[str]:
    tables = [name for name, data in recipe.data.items() if not isinstance(data, RecipeData)]
    return [name for name in tables if (recipe.name, name) not in result.data]


def _read(workspace: Workspace, lock: Lock, problems: list[Problem]) -> list[Recipe]:
    """The recipes that can be read; what is wrong with the others joins `problems`."""
    recipes: list[Recipe] = []
    for path in workspace.recipe_paths(lock):
        try:
            recipes.append(workspace.read_recipe(path))
            unique_by_name(recipes)
        except ModelbuildError as error:
            problems.append(Problem.of(error, str(path), 1))
    return recipes


def _gone(workspace: Workspace, lock: Lock) -> Iterator[Problem]:
    """Recipes that only the lock has."""
    missing = [each for each in lock.recipes.values() if not (workspace.root / each.path).exists()]
    lines = key_lines(workspace.lock_bytes().decode()) if missing else {}
    for recipe in missing:
        error = out_of_date(f"there is no recipe '{recipe.name}' at {recipe.path}")
        yield Problem.of(error, LOCK_NAME, lines.get(f"recipes.{recipe.name}", 1))
