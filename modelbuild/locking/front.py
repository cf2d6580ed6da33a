"""`modelbuild lock`: bring the workspace's lock up to date, or say that it is not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelbuild.errors import UsageError
from modelbuild.locking.lock import (
    LockResult,
    changes,
    check_current,
    lock_recipes,
    write_locked,
)
from modelbuild.locking.request import LockRequest, out_of_date
from modelbuild.sources.lock_on_disk import read_agreed_lock, read_whole_lock
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_conflict import has_conflict
from modelbuild.spec.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class LockReport:
    result: LockResult
    changed: dict[str, list[str]]
    """What moved, by recipe."""
    removed: tuple[str, ...]
    """Recipes that are in the workspace no more."""
    written: bool


def lock(recipes: Collection[PurePosixPath], request: LockRequest) -> LockReport:
    """Lock these recipes, paths relative to the workspace; without any, all of the workspace.

    With `request.check`, nothing is written and OutOfDateError says what is not current.
    """
    workspace = request.workspace
    previous = read_whole_lock(workspace) if request.check else read_agreed_lock(workspace)
    if recipes:
        chosen = [workspace.read_recipe(path) for path in sorted(recipes)]
        gone: tuple[str, ...] = ()
    else:
        chosen = list(workspace.read_recipes(previous).values())
        gone = tuple(sorted(set(previous.recipes) - {recipe.name for recipe in chosen}))
    if not chosen:
        raise UsageError(
            "there is no recipe in this workspace",
            facts=[("workspace", str(workspace.root))],
            hint="To write one for the scripts in a folder: modelbuild init FOLDER",
        )
    selected = workspace.with_upstream(chosen, previous)
    _check_names(selected, previous, request)
    result = lock_recipes(selected, previous, request)
    if request.check:
        check_current(result, selected)
        if gone:
            raise out_of_date([(name, "its recipe is gone") for name in gone])
    changed = {name: changes(result, name) for name in sorted(selected) if result.stale(name)}
    conflicted = has_conflict(workspace.lock_bytes())
    moved = bool(changed or gone or conflicted) and not request.check
    if moved:
        result = write_locked(selected, result, request, forget=gone)
    return LockReport(result=result, changed=changed, removed=gone, written=moved)


def _check_names(recipes: dict[str, Recipe], lock: Lock, request: LockRequest) -> None:
    """Every name after `--update` must be something that can move."""
    known = {"python", "runtime"}
    for recipe in recipes.values():
        known |= set(recipe.data)
        entry = lock.recipes.get(recipe.name)
        if entry:
            environment = lock.environments[entry.environment]
            known |= environment.packages
            known |= {"base"} if environment.base != "host" else set()
    for name in request.update or ():
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, sorted(known), n=1)
            raise UsageError(
                f"--update: nothing that is locked has the name '{name}'",
                facts=[] if near else [("known", ", ".join(sorted(known)))],
                hint=f"Did you mean: {near[0]}" if near else None,
            )
