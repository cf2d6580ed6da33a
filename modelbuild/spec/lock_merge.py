"""Three-way merge of locks, recipe by recipe: what a merge by lines would get wrong, or refuse.

Environments, classes and probes are named by their content, so both sides' are right. Of a recipe
that one side changed, that side's is right, unless it builds on a stage which the other changed.
What is left is in conflict: its derivations follow from sources that are being merged too, and
only `modelbuild lock` can compute them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from modelbuild.errors import NotReproducibleError
from modelbuild.spec.lock import Lock, LockedRecipe, Upstream
from modelbuild.spec.lock_conflict import joined_parts, joined_results
from modelbuild.spec.lock_file import recipe_text, render_lock
from modelbuild.spec.lock_tidy import tidy

Versions = tuple[LockedRecipe | None, LockedRecipe | None, LockedRecipe | None]
"""Ours, base, theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """What two branches that began at `base` make of its lock."""

    lock: Lock
    """Without the recipes in conflict."""
    conflicts: Mapping[str, str]
    """Why, by recipe."""
    versions: Mapping[str, Versions]
    """Of each recipe in conflict."""

    def render(self) -> bytes:
        """The lock; with conflict markers around each recipe in conflict."""
        if not self.conflicts:
            return render_lock(tidy(self.lock))
        marked = {name: _marked(name, each) for name, each in self.versions.items()}
        return render_lock(self.lock, marked)


def merge_locks(base: Lock, ours: Lock, theirs: Lock) -> Merge:
    """The three locks are read by `parse_lock`: each is valid by itself."""
    recipes: dict[str, LockedRecipe] = {}
    conflicts: dict[str, str] = {}
    for name in sorted({*base.recipes, *ours.recipes, *theirs.recipes}):
        before, our, their = (lock.recipes.get(name) for lock in (base, ours, theirs))
        try:
            chosen = _chosen(before, our, their)
        except _ConflictError as conflict:
            conflicts[name] = str(conflict)
            continue
        if chosen is not None:
            recipes[name] = chosen
    merged = replace(joined_parts(ours, theirs), recipes=recipes)
    for name, reason in _moved_below(merged, conflicts).items():
        conflicts[name] = reason
        recipes.pop(name)
    return Merge(
        lock=replace(merged, recipes=recipes),
        conflicts=dict(sorted(conflicts.items())),
        versions={
            name: (ours.recipes.get(name), base.recipes.get(name), theirs.recipes.get(name))
            for name in conflicts
        },
    )


class _ConflictError(Exception):
    """Two branches want different things of one recipe."""


def _chosen(
    base: LockedRecipe | None, ours: LockedRecipe | None, theirs: LockedRecipe | None
) -> LockedRecipe | None:
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if ours is None or theirs is None:
        raise _ConflictError("one branch removed it, the other changed it")
    if ours.content != theirs.content:
        raise _ConflictError("both branches changed it")
    try:
        return joined_results(ours, theirs)
    except NotReproducibleError as error:
        raise _ConflictError(error.summary) from None


def _moved_below(lock: Lock, conflicts: Collection[str]) -> dict[str, str]:
    """The recipes that build on a stage which is not as they know it, directly or not."""
    found: dict[str, str] = {}
    while True:
        more = {
            name: f"it builds on {upstream.stage}, which the other branch changed"
            for name, recipe in lock.recipes.items()
            if name not in found
            for stage in recipe.stages.values()
            for upstream in stage.upstream.values()
            if not _as_known(upstream, lock, {*conflicts, *found})
        }
        if not more:
            return found
        found |= more


def _as_known(upstream: Upstream, lock: Lock, unsettled: Collection[str]) -> bool:
    stage = lock.stage(upstream.stage)
    settled = upstream.stage.partition(":")[0] not in unsettled
    return settled and stage is not None and stage.derivation.short == upstream.derivation


def _marked(name: str, versions: Versions) -> str:
    """As git marks a conflict, with the common ancestor between."""
    ours, base, theirs = ("" if each is None else recipe_text(name, each) for each in versions)
    return f"<<<<<<< ours\n{ours}||||||| base\n{base}=======\n{theirs}>>>>>>> theirs\n"
