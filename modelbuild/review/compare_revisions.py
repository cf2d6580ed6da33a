"""Recipes in two revisions: what their locks claim, and what they have on record of seeds.

Read from the two locks alone: nothing is built, and no store is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from modelbuild.errors import UsageError
from modelbuild.review.difference import RecipeDifference, compare_recipe
from modelbuild.review.noise import against_noise
from modelbuild.review.revisions import WORKING_TREE, LockVersion
from modelbuild.sources.workspace import LOCK_NAME
from modelbuild.spec.lock import LockedRecipe, LockedSeeds
from modelbuild.spec.seed_statistics import FEW, compare_paired
from modelbuild.verify.compared_metric import (
    FEW_SEEDS,
    ComparedMetric,
    by_name,
    many_metrics,
    naming,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionComparison:
    """One recipe as both locks have it."""

    name: str
    metrics: Mapping[str, ComparedMetric]
    notes: tuple[str, ...]
    """What a lock does not have and how it gets there, and what to bear in mind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionsReport:
    first: LockVersion
    second: LockVersion
    recipes: tuple[RevisionComparison, ...]
    unchanged: tuple[str, ...]
    """Names of recipes that are the same in both."""
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    label: str
    """`A (main)`"""
    place: str
    recipe: LockedRecipe
    values: Mapping[str, float]
    """Of each metric what is claimed, else the mean over its seeds."""
    seeds: Mapping[str, LockedSeeds]

    def paired_values(self, metric: str) -> dict[int, float]:
        """By seed; nothing where the lock has only the statistics."""
        found = self.seeds.get(metric)
        return dict(enumerate(found.values, start=self.recipe.seed)) if found else {}


def compare_revisions(
    first: LockVersion, second: LockVersion, recipe: str | None, metrics: Collection[str]
) -> RevisionsReport:
    """Of one recipe, else of all that are not the same in both locks.

    A metric whose values with the same two or more seeds stand in both locks is compared seed by
    seed (a paired t-test), any other by what there is of spreads. Raises UsageError where a lock
    does not have the recipe, and where there is no such metric.
    """
    versions = (first, second)
    names = _shared(versions) if recipe is None else [recipe]
    if recipe is not None:
        for each in versions:
            if recipe not in each.lock.recipes:
                raise _no_recipe(recipe, each)
    compared, unchanged = [], []
    for name in names:
        always = recipe is not None
        difference = compare_recipe(name, first.lock, second.lock, always=always)
        if difference is None:
            unchanged.append(name)
        else:
            compared.append(_compare(difference, versions))
    return RevisionsReport(
        first=first,
        second=second,
        recipes=tuple(_with(metrics, compared)),
        unchanged=tuple(unchanged),
        notes=tuple(_only_one(versions)) if recipe is None else (),
    )


def _shared(versions: tuple[LockVersion, LockVersion]) -> list[str]:
    first, second = versions
    names = sorted(first.lock.recipes.keys() & second.lock.recipes.keys())
    if not names:
        raise UsageError(
            f"no recipe is in {LOCK_NAME} at both {first.label} and {second.label}",
            facts=[(each.label, _recipes(each)) for each in versions],
        )
    return names


def _no_recipe(recipe: str, version: LockVersion) -> UsageError:
    return UsageError(
        f"{LOCK_NAME} at {version.label} has no recipe '{recipe}'",
        facts=[("recipes in it", _recipes(version))],
    )


def _recipes(version: LockVersion) -> str:
    return ", ".join(sorted(version.lock.recipes)) or "none"


def _only_one(versions: tuple[LockVersion, LockVersion]) -> Iterator[str]:
    first, second = (each.lock.recipes.keys() for each in versions)
    for label, own, other in (("A", first, second), ("B", second, first)):
        yield from (f"{name}: only {label} has this recipe" for name in sorted(own - other))


def _with(
    metrics: Collection[str], compared: list[RevisionComparison]
) -> Iterator[RevisionComparison]:
    """Those that have one of the metrics asked for, or none at all, which their notes explain."""
    known = {name for each in compared for name in each.metrics}
    unknown = sorted(set(metrics) - known)
    if unknown and known:
        raise UsageError(
            f"there is no metric '{unknown[0]}' in both revisions",
            facts=[("found", ", ".join(sorted(known)))],
        )
    for each in compared:
        chosen = {n: m for n, m in each.metrics.items() if not metrics or n in metrics}
        if chosen or not each.metrics:
            yield replace(each, metrics=chosen)


def _compare(
    difference: RecipeDifference, versions: tuple[LockVersion, LockVersion]
) -> RevisionComparison:
    first, second = sides = _sides(difference, versions)
    names = sorted(first.values.keys() & second.values.keys())
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for name in names:
        one, other = first.paired_values(name), second.paired_values(name)
        both = sorted(one.keys() & other.keys())
        if len(both) >= 2:
            pairs[name] = ([one[seed] for seed in both], [other[seed] for seed in both])
    paired = compare_paired(pairs)
    metrics = {
        name: ComparedMetric.of(paired[name]) if name in paired else _unpaired(name, sides)
        for name in names
    }
    notes = [*_lacking(difference, sides), *_to_bear_in_mind(difference, sides, metrics)]
    return RevisionComparison(name=difference.name, metrics=metrics, notes=tuple(notes))


def _sides(
    difference: RecipeDifference, versions: tuple[LockVersion, LockVersion]
) -> tuple[_Side, _Side]:
    recipes = [each.lock.recipes[difference.name] for each in versions]
    seeds = [{n: stage.current_seeds for n, stage in each.stages.items()} for each in recipes]
    claims = (
        {stage.name: stage.old.metrics for stage in difference.stages if stage.old},
        {stage.name: stage.new.metrics for stage in difference.stages if stage.new},
    )
    values = [
        {stage: {**_means(on_record), **claimed.get(stage, {})} for stage, on_record in own.items()}
        for own, claimed in zip(seeds, claims, strict=True)
    ]
    named = naming(*values)
    first, second = (
        _Side(
            label=f"{letter} ({version.label})",
            place=version.label,
            recipe=recipe,
            values=by_name(own, named),
            seeds=by_name(on_record, named),
        )
        for letter, version, recipe, own, on_record in zip(
            "AB", versions, recipes, values, seeds, strict=True
        )
    )
    return first, second


def _means(seeds: Mapping[str, LockedSeeds]) -> dict[str, float]:
    return {name: each.statistics.mean for name, each in seeds.items()}


def _unpaired(name: str, sides: tuple[_Side, _Side]) -> ComparedMetric:
    first, second = (side.values[name] for side in sides)
    found = [side.seeds.get(name) for side in sides]
    before, after = (each.statistics if each else None for each in found)
    return ComparedMetric(
        first=first,
        second=second,
        first_spread=before,
        second_spread=after,
        paired=None,
        noise=against_noise(first, second, before, after) if first != second else None,
    )


def _lacking(difference: RecipeDifference, sides: tuple[_Side, _Side]) -> Iterator[str]:
    """What a lock does not have, and what to run for it."""
    name = difference.name
    counts = [each.statistics.seeds for side in sides for each in side.seeds.values()]
    measure = f"modelbuild verify {name} --seeds {max(counts, default=FEW)}"
    for side in sides:
        unbuilt = [n for n, stage in side.recipe.stages.items() if not stage.current_claims]
        if unbuilt:
            yield (
                f"{side.label} has no claim of {', '.join(sorted(unbuilt))}."
                f" {_at(side)}: modelbuild build {name}, then commit {LOCK_NAME}"
            )
        if not side.seeds:
            yield (
                f"{side.label} has no seeds on record."
                f" {_at(side)}: {measure}, then commit {LOCK_NAME}"
            )
        elif not any(each.values for each in side.seeds.values()):
            yield (
                f"{side.label} has the spread over its seeds, but not their values, so they can't"
                f" be paired. {_at(side)}: {measure}, then commit {LOCK_NAME}"
            )
    for label, own, other in zip("AB", sides, sides[::-1], strict=True):
        for metric in sorted(own.values.keys() - other.values.keys()):
            yield f"{metric}: only {label} has it"


def _at(side: _Side) -> str:
    return "In the working tree run" if side.place == WORKING_TREE else f"At {side.place} run"


def _to_bear_in_mind(
    difference: RecipeDifference, sides: tuple[_Side, _Side], metrics: Mapping[str, ComparedMetric]
) -> Iterator[str]:
    if difference.kind == "changed" and all(s.kind == "unchanged" for s in difference.stages):
        yield "every stage is made from the same inputs in both"
    for stage in difference.stages:
        if stage.other_class:
            yield f"{stage.name}: the claims are of different numeric classes"
    first, second = ({s.numeric_class for s in side.seeds.values()} for side in sides)
    if first and second and first != second:
        yield "the seeds were built on different numeric classes"
    spans = [_span(side) for side in sides]
    paired = [each.paired for each in metrics.values() if each.paired]
    if all(spans) and spans[0] != spans[1]:
        shared = "those of both are paired" if paired else "nothing is paired"
        yield f"A has the seeds {spans[0]}, B {spans[1]}: {shared}"
    if paired and min(each.difference.seeds for each in paired) < FEW:
        yield FEW_SEEDS
    if len(paired) > 1:
        yield many_metrics(len(paired))


def _span(side: _Side) -> str:
    count = max((each.statistics.seeds for each in side.seeds.values()), default=0)
    return f"{side.recipe.seed} to {side.recipe.seed + count - 1}" if count else ""
