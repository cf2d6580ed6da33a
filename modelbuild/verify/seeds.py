"""Build a recipe with several seeds, and say how its metrics spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelbuild.build.build import build
from modelbuild.build.request import BuildRequest, BuildResult
from modelbuild.build.run import Run
from modelbuild.build.seed_record import Spread, add_seeds, on_record
from modelbuild.errors import ModelbuildError, NotReproducibleError, StageFailedError, UsageError
from modelbuild.sources.lock_on_disk import update_lock
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Lock, LockedSeeds
from modelbuild.spec.lock_tidy import tidy
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_hardware import SEEDS
from modelbuild.spec.seed_statistics import summarise
from modelbuild.store.realisations import Realisation


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRuns:
    """A recipe built with several seeds."""

    recipe: Recipe
    asked: tuple[int, ...]
    results: Mapping[int, BuildResult] = field(default_factory=dict)
    failures: Mapping[int, ModelbuildError] = field(default_factory=dict)

    def metrics(self) -> dict[str, dict[str, dict[int, float]]]:
        """By stage, by metric, by seed."""
        found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in self.recipe.stages}
        for seed, result in self.results.items():
            for stage, outcome in result.own_stages().items():
                for name, value in _realised(outcome.realisation).metrics.items():
                    found[stage].setdefault(name, {})[seed] = value
        return found


def _realised(realisation: Realisation | None) -> Realisation:
    assert realisation is not None, "every stage of a build that was no dry run has one"
    return realisation


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedsVerdict:
    """How the metrics of a recipe's stages spread from seed to seed."""

    stages: Mapping[str, Mapping[str, Spread]]
    """By stage, by metric: of the seeds that were built now, else as the lock has it."""
    asked: int | None = None
    """How many seeds were to be built; None: none, what is here is from the lock."""
    kept: bool | None = None
    """Whether statistics of now are in the lock."""
    notes: tuple[str, ...] = ()
    """What is missing, and why something is not kept."""
    problems: tuple[ModelbuildError, ...] = ()


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """`first` and those after it. Raises UsageError for fewer than two, and past the last one."""
    if count < 2:
        raise UsageError(
            "the spread of fewer than two seeds is not known",
            facts=[("wanted", "--seeds 2 or more; 5 tell more"), ("found", str(count))],
        )
    if first + count - 1 not in SEEDS:
        raise UsageError(
            f"there are not {count} seeds from {first} on", facts=[("last", str(SEEDS[-1]))]
        )
    return tuple(range(first, first + count))


def build_seeds(recipe: Recipe, seeds: Sequence[int], request: BuildRequest) -> SeedRuns:
    """Build with each seed, one after the other; nothing is claimed and no lock written.

    A seed whose stage fails, or does not reproduce its claim, does not keep the others from
    being built. What would fail with every seed is raised.
    """
    results: dict[int, BuildResult] = {}
    failures: dict[int, ModelbuildError] = {}
    for count, seed in enumerate(seeds, start=1):
        name = " with ".join(filter(None, (recipe.name, ", ".join(request.settings))))
        request.observer.message(f"{name}: seed {seed} ({count} of {len(seeds)})")
        settings = (*request.settings, f"seed={seed}")
        try:
            results[seed] = build(replace(request, settings=settings))
        except (StageFailedError, NotReproducibleError) as error:
            failures[seed] = _of_seed(error, recipe, settings)
    return SeedRuns(recipe=recipe, asked=tuple(seeds), results=results, failures=failures)


def _of_seed(error: ModelbuildError, recipe: Recipe, settings: Sequence[str]) -> ModelbuildError:
    alone = " ".join(f"--set {setting}" for setting in settings)
    return type(error)(
        f"{recipe.name} with {', '.join(settings)}: {error.summary}",
        facts=error.facts,
        hint=f"{error.hint}\nThis seed alone: modelbuild build {recipe.path} {alone}",
    )


def measure_seeds(recipe: Recipe, run: Run, count: int) -> SeedsVerdict:
    """Build `count` seeds of a locked recipe, and keep their statistics in the lock.

    They are kept if every seed was built: what stands in the lock is never of fewer seeds than
    were asked for.
    """
    request = replace(run.request, dry_run=False, locked=False)
    runs = build_seeds(recipe, seeds_from(recipe.determinism.seed, count), request)
    stages: dict[str, dict[str, Spread]] = {}
    notes: list[str] = []
    for stage, metrics in runs.metrics().items():
        stages[stage] = {}
        for name, values in sorted(metrics.items()):
            missing = [seed for seed in runs.results if seed not in values]
            if missing:
                notes.append(f"{stage}: {name} is missing with {name_seeds(missing)}")
            if len(values) >= 2:
                own = values.get(recipe.determinism.seed)
                statistics = summarise(list(values.values()))
                stages[stage][name] = Spread(own=own, statistics=statistics)
    notes += no_spread(stages)
    if runs.failures:
        failed = name_seeds(list(runs.failures))
        notes.append(f"{failed} failed: what follows is of {len(runs.results)} of {count} seeds")
    kept = _keep(runs, stages, run, notes)
    return SeedsVerdict(
        stages=stages,
        asked=count,
        kept=kept,
        notes=tuple(notes),
        problems=tuple(runs.failures.values()),
    )


def no_spread(stages: Mapping[str, Mapping[str, Spread]]) -> list[str]:
    """A note on each stage with metrics that no seed changes: a script may set its own seed."""
    notes = []
    for stage, metrics in stages.items():
        fixed = [name for name, each in metrics.items() if each.statistics.deviation == 0]
        if fixed:
            count = max(metrics[name].statistics.seeds for name in fixed)
            asks = ": does the script use {seed}?" if len(fixed) == len(metrics) else ""
            notes.append(f"{stage}: all {count} seeds gave the same {', '.join(fixed)}{asks}")
    return notes


def name_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _keep(
    runs: SeedRuns, stages: Mapping[str, Mapping[str, Spread]], run: Run, notes: list[str]
) -> bool:
    """Write the statistics into the lock, if there are any; what keeps some out joins `notes`."""
    if runs.failures:
        notes.append("model.lock stays as it is")
        return False
    own, measured = runs.results[runs.asked[0]], runs.metrics()
    new: dict[StageId, tuple[Realisation, dict[str, LockedSeeds]]] = {}
    for stage, spreads in stages.items():
        identity = StageId(runs.recipe.name, stage)
        realisation = _realised(own.stages[identity].realisation)
        classes = _classes(runs, identity)
        if len(classes) > 1:
            notes.append(f"{stage}: built on classes {', '.join(classes)}: not kept in model.lock")
            continue
        derivation = own.stages[identity].derivation
        complete = {
            name: LockedSeeds(
                derivation=derivation,
                numeric_class=realisation.numeric_class,
                statistics=each.statistics.rounded(),
                values=tuple(measured[stage][name][seed] for seed in runs.asked),
            )
            for name, each in spreads.items()
            if each.statistics.seeds == len(runs.asked)
        }
        if complete:
            new[identity] = (realisation, complete)

    def change(lock: Lock) -> Lock:
        for identity, (realisation, complete) in new.items():
            lock = add_seeds(lock, identity, realisation, complete)
        return tidy(lock)

    try:
        update_lock(run.request.workspace, change)
    except OSError as error:  # a workspace that can't be written has been measured all the same
        notes.append(f"model.lock can't be written: {error.strerror}")
        return False
    return bool(new)


def _classes(runs: SeedRuns, identity: StageId) -> list[str]:
    results = runs.results.values()
    return sorted({_realised(r.stages[identity].realisation).numeric_class for r in results})


def seeds_on_record(recipe: Recipe, run: Run) -> SeedsVerdict:
    """What the lock says of the seeds of a recipe's stages as they are."""
    stages = {}
    for stage, locked in run.locked.entries[recipe.name].stages.items():
        result = run.results.get(StageId(recipe.name, stage))
        claims = locked.current_claims
        found = result.realisation if result else None
        metrics = found.metrics if found else claims[0].metrics if claims else {}
        stages[stage] = on_record(locked, metrics)
    return SeedsVerdict(stages=stages, notes=tuple(no_spread(stages)))
