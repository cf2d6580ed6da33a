"""Check a change of a workspace's models: the lock, what it changes, and what can be built here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from modelbuild.build.build import build
from modelbuild.build.request import BuildRequest, BuildResult, Observer, Silent
from modelbuild.ci.base import merge_base
from modelbuild.ci.lock_check import LockCheck, check_lock
from modelbuild.ci.problems import Problem, unclaimed
from modelbuild.errors import (
    ModelbuildError,
    OutOfDateError,
    UnavailableError,
    UsageError,
    deciding_exit_code,
)
from modelbuild.locking.request import LockRequest
from modelbuild.review.difference import ClaimState, LockDifference, compare_locks
from modelbuild.review.revisions import lock_at
from modelbuild.sources.source import SourceAbsentError
from modelbuild.sources.workspace import LOCK_NAME, RECIPE_NAME, Workspace
from modelbuild.spec.recipe import Recipe
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.verify.verdict import RecipeVerdict

_Errors: TypeAlias = "tuple[ModelbuildError, ...]"


class Scope(StrEnum):
    """Of which recipes."""

    NONE = "none"
    CHANGED = "changed"
    ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRequest:
    workspace: Workspace
    store: Store
    base: str | None = None
    """A revision that the change is to be merged into; None: nothing to compare with."""
    build: Scope = Scope.NONE
    verify: Scope = Scope.NONE
    """Which to build again from scratch; these are not built before."""
    locations: Mapping[str, Path] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One recipe that was built, or built again, as far as this machine can."""

    recipe: Recipe
    built: BuildResult | None = None
    verdict: RecipeVerdict | None = None
    """Of building again."""
    failures: tuple[ModelbuildError, ...] = ()
    lacking: tuple[ModelbuildError, ...] = ()
    """What this machine does not have: no failure of the change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    check: LockCheck
    base: str | None
    commit: str | None
    """The commit at which the branch left `base`."""
    difference: LockDifference | None
    """None without a base, or where a lock can't be read."""
    unreadable: ModelbuildError | None
    """Why the base's lock can't be read."""
    trials: tuple[Trial, ...]

    @property
    def exit_code(self) -> int:
        """Of what does not hold. What this machine lacks does not count."""
        failures = (each.exit_code for trial in self.trials for each in trial.failures)
        return deciding_exit_code([*(each.exit_code for each in self.check.problems), *failures])


def check(request: CheckRequest) -> CheckReport:
    """1. The lock says what the recipes say. 2. What it changes since `base`. 3. Builds.
    4. What it changes has claims: they are read from the lock, so no machine lacks them.

    Raises UsageError for a base that is not there, and where there is nothing to check. All else
    is in the report.
    """
    commit = merge_base(request.base, request.workspace) if request.base else None
    checked = check_lock(
        LockRequest(
            workspace=request.workspace,
            store=request.store,
            check=True,
            locations=request.locations,
            on_message=request.observer.message,
        )
    )
    difference = unreadable = None
    if commit and checked.lock:
        try:
            difference = compare_locks(lock_at(commit, request.workspace).lock, checked.lock)
        except ModelbuildError as error:
            unreadable = error
    _something(checked, difference, request.workspace)
    again = _chosen(request.verify, checked.current, difference)
    once = _chosen(request.build, checked.current, difference)
    trials = [_verify(recipe, request) for recipe in again.values()]
    trials += [_build(recipe, request) for name, recipe in once.items() if name not in again]
    missing = tuple(_unclaimed(checked, difference, trials))
    return CheckReport(
        check=replace(checked, problems=(*checked.problems, *missing)),
        base=request.base,
        commit=commit,
        difference=difference,
        unreadable=unreadable,
        trials=tuple(sorted(trials, key=lambda trial: trial.recipe.name)),
    )


def _something(checked: LockCheck, difference: LockDifference | None, workspace: Workspace) -> None:
    """Raise UsageError for a folder without models: a job that looks there is always green.

    Where a change removes all of them, that is what it shows.
    """
    if checked.lock is None or checked.lock.recipes or checked.problems or checked.unchecked:
        return
    if difference and difference.recipes:
        return
    raise UsageError(
        "there is nothing to check: no recipe is in this workspace, and none is locked",
        facts=[
            ("workspace", str(workspace.root)),
            ("wanted", f"{LOCK_NAME} in it, or a {RECIPE_NAME} in it or below"),
        ],
        hint=f"Run it in the folder of {LOCK_NAME}, of a commit that has it.",
    )


def _unclaimed(
    checked: LockCheck, difference: LockDifference | None, trials: Sequence[Trial]
) -> Iterator[Problem]:
    """What changed and was not built since; all of the lock, where nothing is known of a change.

    A trial that found the same has said so.
    """
    said = {
        trial.recipe.name
        for trial in trials
        if any(isinstance(each, OutOfDateError) for each in trial.failures)
    }
    if checked.lock is None:
        return
    for name, recipe in checked.current.items():
        if name in said:
            continue
        if difference is None:
            locked = checked.lock.recipes[name].stages
            stages = [each for each in recipe.stages if not locked[each].current_claims]
        else:
            stages = [
                stage.name
                for compared in difference.recipes
                if compared.name == name
                for stage in compared.stages
                if stage.changed and stage.state in (ClaimState.STALE, ClaimState.MISSING)
            ]
        if stages:
            yield unclaimed(recipe, stages)


def _chosen(
    scope: Scope, recipes: Mapping[str, Recipe], difference: LockDifference | None
) -> dict[str, Recipe]:
    """Where nothing is known of what changed, all of it may have."""
    if scope is Scope.NONE:
        return {}
    if scope is Scope.ALL or difference is None:
        return dict(recipes)
    changed = {
        each.name for each in difference.recipes if any(stage.changed for stage in each.stages)
    }
    return {name: recipe for name, recipe in recipes.items() if name in changed}


def _build(recipe: Recipe, request: CheckRequest) -> Trial:
    try:
        built = build(
            BuildRequest(
                workspace=request.workspace,
                store=request.store,
                recipe=recipe.path,
                locked=True,
                locations=request.locations,
                observer=request.observer,
            )
        )
    except ModelbuildError as error:
        failures, lacking = _sorted([error])
        return Trial(recipe=recipe, failures=failures, lacking=lacking)
    return Trial(recipe=recipe, built=built)


def _verify(recipe: Recipe, request: CheckRequest) -> Trial:
    from modelbuild.verify.verify import VerifyRequest, verify

    report = verify(
        VerifyRequest(
            workspace=request.workspace,
            store=request.store,
            recipes=[recipe.path],
            rebuild=True,
            locations=request.locations,
            observer=request.observer,
        )
    )
    failures, lacking = _sorted(report.problems)
    verdict = report.recipes[recipe.name]
    return Trial(recipe=recipe, verdict=verdict, failures=failures, lacking=lacking)


def _sorted(errors: Iterable[ModelbuildError]) -> tuple[_Errors, _Errors]:
    """Into what fails, and what this machine lacks: hardware, isolation, data."""
    found = tuple(errors)
    lacking = tuple(e for e in found if isinstance(e, UnavailableError | SourceAbsentError))
    return tuple(each for each in found if each not in lacking), lacking
