"""What a command line names: a workspace, a recipe, a stage."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from modelbuild.build.outputs import Lookup
from modelbuild.errors import UsageError
from modelbuild.sources.locations import read_locations
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.sources.workspace import Workspace
from modelbuild.store.store import Store


def workspace_of(recipe: Path | None) -> Workspace:
    """The workspace of a recipe file or folder, else of the current folder."""
    return Workspace.around(Path.cwd()) if recipe is None else Workspace.around_recipe(recipe)


def workspace_naming(text: str | None) -> Workspace:
    """The workspace of a recipe that is named by its path; else of the current folder."""
    named = Path(text) if text else None
    return workspace_of(named if named and named.exists() else None)


def recipe_path(text: str, workspace: Workspace) -> PurePosixPath:
    """A recipe given as file, as folder or by its name in the lock, relative to the workspace."""
    path = Path(text)
    if path.exists():
        return workspace.relative(path)
    known = read_lock(workspace).recipes
    if text not in known:
        raise UsageError(
            f"there is no recipe '{text}'",
            facts=[("wanted", "a recipe file, a folder with recipe.toml, or a locked name")],
            hint=f"Locked here: {', '.join(sorted(known)) or 'nothing'}",
        )
    return known[text].path


def recipe_name(text: str, workspace: Workspace) -> str:
    """The name of a recipe that may be gone by now: then only its name is left."""
    path = Path(text)
    if not path.exists():
        return text
    relative = workspace.relative(path)
    known = read_lock(workspace).recipes.values()
    places = (relative, relative / "recipe.toml")
    return next((recipe.name for recipe in known if recipe.path in places), path.stem)


def lookup(target: str) -> Lookup:
    """`RECIPE[:STAGE]`, as a command line names a stage."""
    text, _, stage = target.partition(":")
    workspace = workspace_naming(text)
    return Lookup(
        workspace=workspace,
        store=Store.open(),
        recipe=recipe_path(text, workspace),
        stage=stage or None,
        locations=read_locations(os.environ),
    )
