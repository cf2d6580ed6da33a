"""What changed between two locks, as records: read from the two locks alone.

No store, no network, no clock: a reviewer's machine has neither data nor packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelbuild.review.changes import Change, changes
from modelbuild.review.noise import against_noise
from modelbuild.review.packages import PackageChange, compare_packages
from modelbuild.review.probes import ProbeChange, compare_probes, probe_alarms
from modelbuild.review.reasons import rebuild_reasons
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import (
    Claim,
    Lock,
    LockedData,
    LockedEnvironment,
    LockedFile,
    LockedRecipe,
    LockedStage,
)
from modelbuild.spec.recipe import ParamValue


class ClaimState(StrEnum):
    """Whether a lock says what came out of a stage as it is."""

    CURRENT = "current"
    STALE = "stale"
    """Claimed for another derivation only: not built since."""
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDifference:
    """One stage that is on either side, whether or not it changed."""

    name: str
    kind: str
    """`added`, `removed`, `rebuilds` or `unchanged`."""
    reasons: tuple[str, ...] = ()
    """What of its derivation moved, in the recipe's words."""
    state: ClaimState | None
    """Of the new side; None where the stage was removed."""
    old: Claim | None
    new: Claim | None
    """Of the same numeric class where both sides have one."""
    metrics: tuple[Change[float], ...] = ()
    """Every metric of either claim, moved or not."""
    noise: Mapping[str, str] = field(default_factory=dict)
    """Of metrics that moved: how that compares with the spread over seeds on record."""

    @property
    def changed(self) -> bool:
        return self.kind != "unchanged" or self.old != self.new

    @property
    def other_class(self) -> bool:
        return bool(self.old and self.new and self.old.numeric_class != self.new.numeric_class)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeDifference:
    """One recipe that differs between the two locks."""

    name: str
    kind: str
    """`added`, `removed` or `changed`."""
    stages: tuple[StageDifference, ...]
    params: tuple[Change[ParamValue], ...]
    settings: tuple[Change[ParamValue], ...]
    """Seed, hardware, Python, bootstrap and what else stands in the recipe's table."""
    data: tuple[Change[LockedData], ...]
    code: tuple[Change[LockedFile], ...]
    packages: tuple[PackageChange, ...]
    requires: tuple[Change[str], ...]

    @property
    def rebuilds(self) -> tuple[StageDifference, ...]:
        return tuple(stage for stage in self.stages if stage.kind in ("rebuilds", "added"))


@dataclass(frozen=True, kw_only=True, slots=True)
class LockDifference:
    recipes: tuple[RecipeDifference, ...]
    unchanged: tuple[str, ...]
    """Names of recipes that are the same on both sides."""
    alarms: tuple[str, ...]
    """What no honest change does, or what must not be missed."""
    classes: Mapping[str, Mapping[str, str]]
    """Facts of every numeric class that either side names."""
    probes: tuple[ProbeChange, ...]
    """What asks for a look first."""


def compare_locks(old: Lock, new: Lock) -> LockDifference:
    names = sorted({*old.recipes, *new.recipes})
    compared = {name: compare_recipe(name, old, new) for name in names}
    recipes = tuple(each for each in compared.values() if each is not None)
    probes = compare_probes(old, new)
    return LockDifference(
        recipes=recipes,
        unchanged=tuple(name for name, each in compared.items() if each is None),
        alarms=(*_alarms(recipes), *probe_alarms(probes)),
        classes={**old.classes, **new.classes},
        probes=probes,
    )


def compare_recipe(
    name: str, old_lock: Lock, new_lock: Lock, *, always: bool = False
) -> RecipeDifference | None:
    """What changed in one recipe; None where neither has it or nothing differs.

    With `always`, a recipe of which nothing differs has a record too.
    """
    old, new = old_lock.recipes.get(name), new_lock.recipes.get(name)
    before = old_lock.environments[old.environment] if old else None
    after = new_lock.environments[new.environment] if new else None
    if old is None and new is None:
        return None
    # Environments of one key may differ in the interpreters that they accept.
    accepted = (before and before.interpreters), (after and after.interpreters)
    if old == new and accepted[0] == accepted[1] and not always:
        return None
    return RecipeDifference(
        name=name,
        kind="added" if old is None else "removed" if new is None else "changed",
        stages=tuple(_compare_stages(name, old_lock, new_lock)),
        params=changes(old.params if old else {}, new.params if new else {}),
        settings=changes(_settings(old, before), _settings(new, after)),
        data=changes(old.data if old else {}, new.data if new else {}),
        code=changes(old.code if old else {}, new.code if new else {}),
        packages=compare_packages(before, after),
        requires=changes(
            {each: each for each in old.requires} if old else {},
            {each: each for each in new.requires} if new else {},
        ),
    )


def _settings(
    recipe: LockedRecipe | None, environment: LockedEnvironment | None
) -> dict[str, ParamValue]:
    if recipe is None or environment is None:
        return {}
    values: dict[str, ParamValue | None] = {
        "seed": recipe.seed,
        "level": recipe.level.value,
        "allow": recipe.allow or None,
        "tf32": False if recipe.tf32 == "false" else recipe.tf32,
        **{f"hardware.{name}": value for name, value in recipe.hardware.items()},
        "python": environment.python,
        "platform": environment.platform,
        "backend": environment.backend,
        "bootstrap": recipe.runtime,
        "resolver": recipe.resolver,
        "exclude-newer": recipe.exclude_newer,
        "recipe": str(recipe.path),
        "accepted interpreters": tuple(digest.short for digest in environment.interpreters),
    }
    return {name: value for name, value in values.items() if value is not None}


def _compare_stages(recipe: str, old: Lock, new: Lock) -> Iterator[StageDifference]:
    before = old.recipes[recipe].stages if recipe in old.recipes else {}
    after = new.recipes[recipe].stages if recipe in new.recipes else {}
    for name in _in_order({**before, **after}):
        was, now = before.get(name), after.get(name)
        reasons: tuple[str, ...] = ()
        if was is None or now is None:
            kind = "added" if was is None else "removed"
        elif was.derivation == now.derivation:
            kind = "unchanged"
        else:
            kind = "rebuilds"
            reasons = rebuild_reasons(StageId(recipe, name), old, new)
        first, second = _claims(was, now)
        yield StageDifference(
            name=name,
            kind=kind,
            reasons=reasons,
            state=_state(now) if now else None,
            old=first,
            new=second,
            metrics=_metrics(first, second),
            noise=_noise(was, now, _metrics(first, second)),
        )


def _in_order(stages: Mapping[str, LockedStage]) -> list[str]:
    """Each stage after those of its recipe that it reads, else by name."""
    order: list[str] = []
    while waiting := sorted(stages.keys() - order):
        ready = [
            name
            for name in waiting
            if all(read.removeprefix("stages.") not in waiting for read in stages[name].upstream)
        ]
        order.append((ready or waiting)[0])
    return order


def _claims(old: LockedStage | None, new: LockedStage | None) -> tuple[Claim | None, Claim | None]:
    """One of each side: of a class that both have, else the first."""
    before = {claim.numeric_class: claim for claim in (old.current_claims if old else ())}
    after = {claim.numeric_class: claim for claim in (new.current_claims if new else ())}
    shared = sorted(before.keys() & after.keys())
    # Of several shared classes, one whose claim moved says more.
    moved = [key for key in shared if before[key] != after[key]]
    if shared:
        key = (moved or shared)[0]
        return before[key], after[key]
    return next(iter(before.values()), None), next(iter(after.values()), None)


def _state(stage: LockedStage) -> ClaimState:
    if stage.current_claims:
        return ClaimState.CURRENT
    return ClaimState.STALE if stage.claims else ClaimState.MISSING


def _metrics(old: Claim | None, new: Claim | None) -> tuple[Change[float], ...]:
    before, after = (old.metrics if old else {}), (new.metrics if new else {})
    return tuple(
        Change(name=name, old=before.get(name), new=after.get(name))
        for name in sorted({*before, *after})
    )


def _noise(
    old: LockedStage | None, new: LockedStage | None, metrics: Iterable[Change[float]]
) -> dict[str, str]:
    if old is None or new is None:
        return {}
    before, after = old.current_seeds, new.current_seeds
    found = {}
    for metric in metrics:
        if metric.old is None or metric.new is None or metric.old == metric.new:
            continue
        spreads = (before.get(metric.name), after.get(metric.name))
        one, other = (each.statistics if each else None for each in spreads)
        verdict = against_noise(metric.old, metric.new, one, other)
        if verdict:
            found[metric.name] = verdict
    return found


def _alarms(recipes: tuple[RecipeDifference, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for recipe in recipes:
        for package in recipe.packages:
            if package.other_bytes and package.name not in seen:
                seen.add(package.name)
                yield (
                    f"{package.name} {package.new.version if package.new else ''} has other bytes"
                    " under the same file name: no honest index does that"
                )
        for stage in recipe.stages:
            yield from _claim_alarms(recipe.name, stage)


def _claim_alarms(recipe: str, stage: StageDifference) -> Iterator[str]:
    old, new = stage.old, stage.new
    if old is None or new is None or old.numeric_class != new.numeric_class:
        return
    name = f"{recipe}:{stage.name}"
    if old.derivation == new.derivation and old.output != new.output:
        yield f"the claim of {name} was replaced: same inputs and class, another output"
    elif old.output == new.output and old.metrics != new.metrics:
        yield f"the claim of {name} was edited: the same output has other metrics"
