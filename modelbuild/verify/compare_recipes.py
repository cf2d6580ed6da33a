"""Compare the metrics of two recipes, on the same seeds, pair by pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from modelbuild.build.build import build
from modelbuild.build.request import BuildRequest, Observer, Silent
from modelbuild.errors import ModelbuildError, UsageError, deciding_exit_code
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_settings import SEED_NAMES, override
from modelbuild.spec.seed_statistics import (
    FEW,
    SeedStatistics,
    compare_paired,
)
from modelbuild.store.store import Store
from modelbuild.verify.compared_metric import (
    FEW_SEEDS,
    ComparedMetric,
    by_name,
    many_metrics,
    naming,
)
from modelbuild.verify.seeds import SeedRuns, build_seeds, name_seeds, seeds_from

Values = dict[int, float]
"""By seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareRequest:
    workspace: Workspace
    store: Store
    first: PurePosixPath
    """Relative to the workspace."""
    second: PurePosixPath
    settings: tuple[str, ...] = ()
    """`params.lr=0.01`: of the second, as for a build."""
    seeds: int | None = None
    """How many; None: each recipe with its own seed only."""
    metrics: Collection[str] = ()
    """Empty: all."""
    locations: Mapping[str, Path] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silent)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareReport:
    first: Recipe
    second: Recipe
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    """Built with both recipes; empty where each has its own seed."""
    metrics: Mapping[str, ComparedMetric]
    notes: tuple[str, ...]
    """What could not be compared, and what to bear in mind."""
    problems: tuple[ModelbuildError, ...]

    @property
    def exit_code(self) -> int:
        return deciding_exit_code(problem.exit_code for problem in self.problems)


def compare(request: CompareRequest) -> CompareReport:
    """Build both recipes with the same seeds and compare metric by metric.

    1. The lock must say what both recipes say; OutOfDateError. 2. Build what is not built yet;
    nothing becomes a claim. 3. Pair the metrics of one name. 4. A paired t-test for each.
    """
    sides = (
        _locked(request.first, (), request),
        _locked(request.second, request.settings, request),
    )
    _check(sides, request)
    first, second = runs = _build(sides, request)
    named = naming(*(each.metrics() for each in runs))
    values = [by_name(each.metrics(), named) for each in runs]
    names, notes = _compared(values, request, runs)
    seeds = [seed for seed in first.asked if seed in first.results and seed in second.results]
    if request.seeds is None:
        spreads = [by_name(side.spreads, named) for side in sides]
        metrics = {name: _single(name, values, spreads) for name in names}
    else:
        metrics = _paired(
            {name: (values[0][name], values[1][name]) for name in names}, seeds, notes
        )
        notes += _warnings(len(seeds), runs, len(metrics))
    return CompareReport(
        first=first.recipe,
        second=second.recipe,
        settings=request.settings,
        seeds=() if request.seeds is None else tuple(seeds),
        metrics=metrics,
        notes=tuple(notes),
        problems=tuple(problem for each in runs for problem in each.failures.values()),
    )


def _check(sides: tuple[_Side, _Side], request: CompareRequest) -> None:
    if sides[0].recipe.path == sides[1].recipe.path and not request.settings:
        raise UsageError(
            "there is nothing to compare with",
            facts=[("wanted", "a second recipe, or --set NAME=VALUE for the first one")],
        )
    for setting in request.settings if request.seeds is not None else ():
        if setting.partition("=")[0].strip() in SEED_NAMES:
            raise UsageError(
                f"--set {setting}: both recipes are built with the same seeds",
                hint="How many is said by --seeds.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    recipe: Recipe
    request: BuildRequest
    spreads: Mapping[str, Mapping[str, SeedStatistics]]
    """On record, by stage and metric."""


def _locked(path: PurePosixPath, settings: tuple[str, ...], request: CompareRequest) -> _Side:
    """A recipe that is locked as it stands. Raises OutOfDateError where it is not."""
    build_request = BuildRequest(
        workspace=request.workspace,
        store=request.store,
        recipe=path,
        locations=request.locations,
        observer=request.observer,
    )
    found = build(replace(build_request, locked=True, dry_run=True))
    entry = found.locked.entries[found.recipe.name]
    # Other settings are another derivation, of which nothing is on record.
    stages = {} if settings else entry.stages
    return _Side(
        recipe=override(found.recipe, settings),
        request=replace(build_request, settings=settings),
        spreads={
            name: {metric: each.statistics for metric, each in stage.current_seeds.items()}
            for name, stage in stages.items()
        },
    )


def _build(sides: tuple[_Side, _Side], request: CompareRequest) -> tuple[SeedRuns, SeedRuns]:
    """Both with the first one's seed and those after it, else each with its own seed."""

    def seeds(side: _Side) -> tuple[int, ...]:
        if request.seeds is None:
            return (side.recipe.determinism.seed,)
        return seeds_from(sides[0].recipe.determinism.seed, request.seeds)

    first, second = (build_seeds(side.recipe, seeds(side), side.request) for side in sides)
    return first, second


def _compared(
    values: list[dict[str, Values]], request: CompareRequest, runs: tuple[SeedRuns, SeedRuns]
) -> tuple[list[str], list[str]]:
    """The metrics that both have and that are asked for; a note for each that only one has."""
    first, second = values
    unknown = sorted(set(request.metrics) - (first.keys() | second.keys()))
    if unknown and not any(each.failures for each in runs):
        raise UsageError(
            f"there is no metric '{unknown[0]}'",
            facts=[("found", ", ".join(sorted(first.keys() | second.keys())) or "no metrics")],
        )
    asked = set(request.metrics) or first.keys() | second.keys()
    notes = [
        f"{name}: only {label} has it"
        for label, own, other in (("A", first, second), ("B", second, first))
        for name in sorted(asked & (own.keys() - other.keys()))
    ]
    return sorted(asked & first.keys() & second.keys()), notes


def _single(
    name: str, values: list[dict[str, Values]], spreads: list[dict[str, SeedStatistics]]
) -> ComparedMetric:
    """Of one seed each."""
    (first,), (second,) = (each[name].values() for each in values)
    return ComparedMetric(
        first=first,
        second=second,
        first_spread=spreads[0].get(name),
        second_spread=spreads[1].get(name),
        paired=None,
    )


def _paired(
    metrics: Mapping[str, tuple[Values, Values]], seeds: Sequence[int], notes: list[str]
) -> dict[str, ComparedMetric]:
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for name, (first, second) in metrics.items():
        both = [seed for seed in seeds if seed in first and seed in second]
        missing = [seed for seed in seeds if seed not in both]
        if missing:
            notes.append(f"{name}: missing with {name_seeds(missing)}")
        if len(both) >= 2:
            pairs[name] = ([first[seed] for seed in both], [second[seed] for seed in both])
        else:
            notes.append(f"{name}: of fewer than two seeds nothing can be said")
    return {name: ComparedMetric.of(each) for name, each in compare_paired(pairs).items()}


def _warnings(count: int, runs: tuple[SeedRuns, SeedRuns], metrics: int) -> list[str]:
    """What to bear in mind when reading the statistics."""
    found = [
        f"{name_seeds(list(each.failures))} failed with {label}: left out of both"
        for label, each in zip("AB", runs, strict=True)
        if each.failures
    ]
    if count < FEW:
        found.append(FEW_SEEDS)
    if metrics > 1:
        found.append(many_metrics(metrics))
    return found
