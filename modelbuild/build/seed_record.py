"""What the lock has on record of seeds: how much of a metric is luck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Lock, LockedSeeds, LockedStage
from modelbuild.spec.seed_statistics import SeedStatistics
from modelbuild.store.realisations import Realisation


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A metric among the seeds."""

    own: float | None
    """With the recipe's own seed; None where no result is at hand."""
    statistics: SeedStatistics

    @property
    def usual(self) -> bool | None:
        """Whether the recipe's own seed gives what the others give; None: can't be told."""
        return None if self.own is None else self.statistics.usual(self.own)


def on_record(stage: LockedStage, metrics: Mapping[str, float]) -> dict[str, Spread]:
    """What the lock says of this derivation's seeds, beside the stage's own metrics."""
    return {
        name: Spread(own=metrics.get(name), statistics=each.statistics)
        for name, each in sorted(stage.current_seeds.items())
    }


def add_seeds(
    lock: Lock,
    identity: StageId,
    own: Realisation,
    statistics: Mapping[str, LockedSeeds],
) -> Lock:
    """The lock with statistics in place of the stage's others; `own` tells the class's facts."""
    recipe = lock.recipes.get(identity.recipe)
    stage = recipe.stages.get(identity.stage) if recipe else None
    derivations = {each.derivation for each in statistics.values()}
    if not recipe or not stage or derivations != {stage.derivation}:
        return lock
    stages = {**recipe.stages, identity.stage: replace(stage, seeds=dict(statistics))}
    recipes = {**lock.recipes, identity.recipe: replace(recipe, stages=stages)}
    classes = {**lock.classes, own.numeric_class: own.facts}
    return replace(lock, recipes=recipes, classes=classes)
