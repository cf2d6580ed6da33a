"""Realise the stages of a recipe: already valid, else built; then hold them against the lock."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.build.accept import accept
from modelbuild.build.request import BuildRequest, BuildResult
from modelbuild.build.run import Run
from modelbuild.locking.lock import (
    LockResult,
    changes,
    check_current,
    lock_recipes,
    write_locked,
)
from modelbuild.locking.request import LockRequest
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.spec.lock import Lock
from modelbuild.spec.recipe import Recipe


def build(request: BuildRequest) -> BuildResult:
    """Build one recipe.

    1. Lock what is not locked yet. 2. Realise stage by stage, in the order of their inputs.
    3. Hold each against the claims in the lock, and add the first claims.
    """
    recipe, result, lock_request = lock_for(request)
    run = Run(request=request, locked=result, lock_request=lock_request)
    for identity in result.derivations:
        run.realise(identity)
    accept(run)
    return BuildResult(recipe=recipe, locked=result, stages=run.results)


def lock_for(request: BuildRequest) -> tuple[Recipe, LockResult, LockRequest]:
    """The recipe as it is to be built, and its lock, brought up to date if that is allowed."""
    previous = read_lock(request.workspace)
    recipe = request.workspace.read_recipe(request.recipe)
    if request.settings:
        from modelbuild.spec.recipe_settings import override

        recipe = override(recipe, request.settings)
    recipes = request.workspace.with_upstream([recipe], previous)
    lock_request = LockRequest(
        workspace=request.workspace,
        store=request.store,
        check=request.locked,
        paranoid=request.paranoid,
        locations=request.locations,
        on_message=request.observer.message,
    )
    return recipe, _lock(recipes, previous, request, lock_request), lock_request


def _lock(
    recipes: Mapping[str, Recipe], previous: Lock, request: BuildRequest, lock_request: LockRequest
) -> LockResult:
    result = lock_recipes(recipes, previous, lock_request)
    if request.locked:
        check_current(result, recipes)
    elif result.changed and request.writes_lock:
        result = write_locked(recipes, result, lock_request)
        for name in recipes:
            if result.stale(name):
                request.observer.message(f"locked {name}: {'; '.join(changes(result, name))}")
    return result
