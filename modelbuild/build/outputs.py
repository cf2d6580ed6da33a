"""Find what was built for a recipe, without building."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelbuild.build.build import build
from modelbuild.build.log import log_folder
from modelbuild.build.request import BuildRequest
from modelbuild.errors import ModelbuildError, OutOfDateError
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import StageId
from modelbuild.spec.recipe import Recipe
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Which stage is meant, and where to look."""

    workspace: Workspace
    store: Store
    recipe: PurePosixPath
    stage: str | None
    """None: the recipe's last stage."""
    locations: Mapping[str, Path]


def find_output(lookup: Lookup) -> tuple[StageId, Realisation | None]:
    """The realisation that a build would find valid, at any isolation, if there is one."""
    request = BuildRequest(
        workspace=lookup.workspace,
        store=lookup.store,
        recipe=lookup.recipe,
        isolation=Isolation.NONE,
        locked=True,
        dry_run=True,
        locations=lookup.locations,
    )
    result = build(request)
    identity = stage_of(lookup)
    return identity, result.stages[identity].realisation


def stage_of(lookup: Lookup) -> StageId:
    return stage_named(lookup.workspace.read_recipe(lookup.recipe), lookup.stage)


def stage_named(recipe: Recipe, name: str | None) -> StageId:
    """A stage of the recipe; None: its last one. Raises ModelbuildError where there is none."""
    stage = name or recipe.last_stage
    if stage not in recipe.stages:
        raise ModelbuildError(
            f"{recipe.path} has no stage '{stage}'",
            facts=[("stages", ", ".join(recipe.stages))],
        )
    return StageId(recipe.name, stage)


def find_log(lookup: Lookup) -> Path:
    """The log of the stage's valid output, else of its last run in this workspace."""
    try:
        identity, realisation = find_output(lookup)
    except OutOfDateError:
        identity, realisation = stage_of(lookup), None
    if realisation and (lookup.store.root / realisation.log).exists():
        return lookup.store.root / realisation.log
    folder = log_folder(identity, lookup.workspace.root, lookup.store)
    logs = sorted(folder.glob("*.log"))
    if not logs:
        raise ModelbuildError(
            f"there is no log of {identity}", hint="It has not run here: modelbuild build"
        )
    return logs[-1]
