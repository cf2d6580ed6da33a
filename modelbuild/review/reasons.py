"""Why a stage is built again: what of its derivation differs between two locks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.review.changes import changes
from modelbuild.spec.derivation import StageId
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock, LockedRecipe, LockedStage

UNNAMED = "env, processes of a stage or the metrics file"
"""What a derivation holds and a lock does not spell out."""


def rebuild_reasons(identity: StageId, old: Lock, new: Lock) -> tuple[str, ...]:
    """In the recipe's words, nearest first. The stage is in both, with different derivations."""
    return tuple(_reasons(identity, old, new)) or (UNNAMED,)


def _reasons(identity: StageId, old: Lock, new: Lock) -> Iterator[str]:
    before, after = old.recipes[identity.recipe], new.recipes[identity.recipe]
    was, now = before.stages[identity.stage], after.stages[identity.stage]
    if was.run != now.run:
        yield "command"
    yield from (change.name for change in changes(_read(before, was), _read(after, now)))
    yield from (change.name for change in changes(_code(before, was), _code(after, now)))
    if before.seed != after.seed:
        yield "seed"
    if before.allow != after.allow:
        yield "allow"
    if before.tf32 != after.tf32:
        yield "tf32"
    numerics = changes(_numerics(before), _numerics(after))
    yield from (f"hardware.{change.name}" for change in numerics)
    if old.environments[before.environment].digest != new.environments[after.environment].digest:
        yield "packages"
    if before.runtime != after.runtime:
        yield "bootstrap"
    yield from (change.name for change in changes(_upstream(was, old), _upstream(now, new)))


def _read(recipe: LockedRecipe, stage: LockedStage) -> dict[str, object]:
    """The content of its data and the values of its parameters."""
    found: dict[str, object] = {}
    for name in stage.reads:
        table, _, key = name.partition(".")
        if table == "params":
            found[name] = recipe.params.get(key)
        elif data := recipe.data.get(key):
            found[name] = (data.digest, data.file)
    return found


def _code(recipe: LockedRecipe, stage: LockedStage) -> dict[str, tuple[Digest, bool]]:
    paths = recipe.code if stage.code is None else stage.code
    return {path: (recipe.code[path].digest, recipe.code[path].executable) for path in paths}


def _numerics(recipe: LockedRecipe) -> Mapping[str, object]:
    """Hardware as derivations have it: memory says only where a stage may run."""
    return {name: value for name, value in recipe.hardware.items() if name != "gpu-memory"}


def _upstream(stage: LockedStage, lock: Lock) -> dict[str, Digest | None]:
    found: dict[str, Digest | None] = {}
    for name, each in stage.upstream.items():
        upstream = lock.stage(each.stage)
        found[name] = upstream.derivation if upstream else None
    return found
