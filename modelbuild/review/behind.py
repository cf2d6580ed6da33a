"""Recipes of the working tree that model.lock does not know as they are, told without a store."""

from __future__ import annotations

from pathlib import PurePosixPath

from modelbuild.errors import ModelbuildError
from modelbuild.locking.code import recipe_code
from modelbuild.locking.inputs import still_fits
from modelbuild.locking.requirements import requirements_of
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import derive
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock, LockedRecipe, LockedStage
from modelbuild.spec.recipe import Recipe, RecipeData, declaration


def behind(lock: Lock, workspace: Workspace) -> list[PurePosixPath]:
    """The recipe files that `lock` is behind: they, or their code, were changed since.

    Recipes and code are read, data is not: `lock --check` says the rest. A recipe that can't be
    read is among them, one that is gone is not.
    """
    return [path for path in workspace.recipe_paths(lock) if not _locked(path, lock, workspace)]


def _locked(path: PurePosixPath, lock: Lock, workspace: Workspace) -> bool:
    try:
        recipe = workspace.read_recipe(path)
        before = lock.recipes.get(recipe.name)
        if before is None:
            return False
        environment = lock.environments[before.environment]
        return (
            _same_settings(recipe, before)
            and still_fits(recipe, requirements_of(recipe, workspace.root), before, environment)
            and _same_data(recipe, before)
            and before.code == recipe_code(recipe, workspace.folder(recipe))
            and before.stages.keys() == recipe.stages.keys()
            and all(_same_stage(recipe, name, before, lock) for name in recipe.stages)
        )
    except ModelbuildError:
        return False


def _same_settings(recipe: Recipe, before: LockedRecipe) -> bool:
    """Also what no derivation holds."""
    determinism = recipe.determinism
    return (
        before.path == recipe.path
        and before.params == recipe.params
        and before.seed == determinism.seed
        and before.level == determinism.level
        and before.allow == tuple(sorted(set(determinism.allow)))
        and before.tf32 == determinism.tf32
    )


def _same_data(recipe: Recipe, before: LockedRecipe) -> bool:
    """As declared. Of data from a package the lock adds which version that was."""
    tables = {n: declaration(d) for n, d in recipe.data.items() if not isinstance(d, RecipeData)}
    return before.data.keys() == tables.keys() and all(
        f"{before.data[name].declared} ".startswith(f"{words} ") for name, words in tables.items()
    )


def _same_stage(recipe: Recipe, name: str, before: LockedRecipe, lock: Lock) -> bool:
    stage, known = recipe.stages[name], before.stages[name]
    upstream = _upstream(recipe, known, lock)
    if upstream is None:
        return False
    environment = lock.environments[before.environment]
    return derive(recipe, stage, before, environment, known.code, upstream).digest == (
        known.derivation
    )


def _upstream(recipe: Recipe, known: LockedStage, lock: Lock) -> dict[str, Digest] | None:
    """What the stage reads, as it is locked now; None where it was locked on top of another."""
    found = {}
    for name, each in known.upstream.items():
        stage = lock.stage(each.stage)
        data = recipe.data.get(name.removeprefix("data.")) if name.startswith("data.") else None
        wanted = f"{data.recipe}:{data.stage or ''}" if isinstance(data, RecipeData) else ""
        if stage is None or stage.derivation.short != each.derivation:
            return None
        if not each.stage.startswith(wanted):
            return None
        found[name] = stage.derivation
    return found
