"""Which files and folders decided the answer of a build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelbuild.build.request import BuildRequest, BuildResult
from modelbuild.build.unchanged import Decided
from modelbuild.locking.code import code_folders
from modelbuild.locking.lock import LockResult
from modelbuild.sandbox.shipped_runtime import preload_library, runtime_files
from modelbuild.sources.data import Resolved
from modelbuild.sources.locations import configuration_file
from modelbuild.sources.workspace import LOCK_NAME
from modelbuild.spec.recipe import PathData, Recipe, RecipeData
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store

_PACKAGE = Path(__file__).parent.parent
"""Another modelbuild may give another answer."""


def what_decided(request: BuildRequest, result: BuildResult) -> Decided | None:
    """Everything whose change could change the answer, but for the environment's variables.

    None where that is not a list of files and folders: globs of data, requirements files that
    may include others, data that is not on this machine.
    """
    locked = result.locked
    paths = {str(request.workspace.lock_path), str(configuration_file(os.environ))}
    paths |= {str(path) for path in (preload_library(), *runtime_files())}
    paths |= {str(path) for path in _PACKAGE.rglob("*.py")}
    folders: dict[str, str] = {}
    for recipe in locked.recipes.values():
        if recipe.environment.requirements is not None:
            return None
        paths |= set(_of_recipe(recipe, request, locked))
        for name, data in recipe.data.items():
            if isinstance(data, RecipeData):
                continue
            resolved = locked.data.get((recipe.name, name))
            if resolved is None or (isinstance(data, PathData) and data.is_glob):
                return None
            place = str(resolved.path)
            if not (resolved.in_place and resolved.path.is_dir()):
                paths.add(place)
            elif resolved.signature and _trusted(resolved, request.store):
                folders[place] = resolved.signature
            else:
                return None
    for stage in result.stages.values():
        if stage.path:
            paths |= {str(path) for path in (stage.path, *stage.path.rglob("*"))}
    return Decided(paths=sorted(paths), folders=folders)


def _trusted(resolved: Resolved, store: Store) -> bool:
    return StatCache.of(store.root).trusts(resolved.path, resolved.signature)


def _of_recipe(recipe: Recipe, request: BuildRequest, locked: LockResult) -> Iterator[str]:
    folder = request.workspace.folder(recipe)
    yield str(request.workspace.root / recipe.path)
    # A lock that appears nearer to the recipe makes another workspace.
    for parent in (recipe.folder, *recipe.folder.parents):
        yield str(request.workspace.root / parent / LOCK_NAME)
    for path in locked.entries[recipe.name].code:
        yield str(folder / path)
    for pattern in recipe.code:
        yield from code_folders(folder, pattern)
    if recipe.environment.project is not None:
        yield str(folder / recipe.environment.project)
