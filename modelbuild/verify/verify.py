"""Check what the lock says: against the recipes, against the store, and by building again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelbuild.build.request import BuildRequest, Observer, Silent
from modelbuild.build.run import Run
from modelbuild.errors import (
    ModelbuildError,
    OutOfDateError,
    UsageError,
)
from modelbuild.locking.inputs import base_problems
from modelbuild.locking.lock import LockResult, check_current, lock_recipes
from modelbuild.locking.request import LockRequest
from modelbuild.sources.lock_on_disk import read_whole_lock
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Lock
from modelbuild.spec.recipe import Recipe, RecipeData
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store
from modelbuild.verify.explain import NOTHING_RECORDED
from modelbuild.verify.explained import (
    ONLY_TORCH,
    ExplainRequest,
    counts_on_record,
    explain_stage,
    pair_on_record,
)
from modelbuild.verify.seeds import SeedsVerdict, measure_seeds, seeds_on_record
from modelbuild.verify.stage import verify_stage
from modelbuild.verify.verdict import RecipeVerdict, StageVerdict, VerifyReport

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyRequest:
    workspace: Workspace
    store: Store
    recipes: Collection[PurePosixPath] = ()
    """Relative to the workspace; empty: everything in the lock."""
    rebuild: bool = False
    seeds: int | None = None
    """Build this many seeds of each recipe, and keep the spread of their metrics in the lock."""
    explain: ExplainRequest | None = None
    """Find the operation at which two builds went apart; build again where there are not two."""
    paranoid: bool = False
    locations: Mapping[str, Path] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silent)


def verify(request: VerifyRequest) -> VerifyReport:
    """Verify each recipe on its own; a problem in one does not keep the others from being seen.

    1. The lock says what the recipe, its code and its data say. 2. Every output that is in the
    store has the digest under which it was recorded. 3. Every stage has a claim, and what is in
    the store agrees with it. 4. With `rebuild`: build again from scratch and compare. With
    `seeds`: see how metrics spread from seed to seed; this is done before the others.
    """
    lock = read_whole_lock(request.workspace)
    chosen = _chosen(request, lock)
    verdicts = {name: _verify_recipe(path, lock, request) for name, path in chosen.items()}
    return VerifyReport(recipes=verdicts)


def _chosen(request: VerifyRequest, lock: Lock) -> dict[str, PurePosixPath]:
    if request.recipes:
        recipes = [request.workspace.read_recipe(path) for path in sorted(request.recipes)]
        return {recipe.name: recipe.path for recipe in recipes}
    if not lock.recipes:
        kind = OutOfDateError if request.workspace.read_recipes(lock) else UsageError
        raise kind(
            "there is nothing to verify: no recipe is locked in this workspace",
            facts=[("workspace", str(request.workspace.root))],
            hint="To lock its recipes: modelbuild lock",
        )
    return {name: recipe.path for name, recipe in sorted(lock.recipes.items())}


def _verify_recipe(path: PurePosixPath, lock: Lock, request: VerifyRequest) -> RecipeVerdict:
    try:
        recipe = request.workspace.read_recipe(path)
        run = _prepare(recipe, lock, request)
    except ModelbuildError as error:
        return RecipeVerdict(lock="stale", problems=(error,))
    absent = _absent(recipe, run.locked)
    stages: dict[str, StageVerdict] = {}
    problems = base_problems(run.locked.environment(recipe.name), run.lock_request)
    measured = _measured(recipe, run, request, problems)
    for identity in run.locked.derivations:
        if identity.recipe == recipe.name:
            stages[identity.stage] = _verify_and_explain(identity, run, request)
            continue
        try:
            run.realise(identity)
        except ModelbuildError as error:
            problems.append(error)
            run.finish(identity, None, "would build")
    problems += _no_such_step(recipe, stages)
    return RecipeVerdict(
        lock="unchecked" if absent else "current",
        absent=absent,
        determinism=recipe.determinism,
        stages=stages,
        seeds=measured or seeds_on_record(recipe, run),
        problems=tuple(problems),
    )


def _measured(
    recipe: Recipe, run: Run, request: VerifyRequest, problems: list[ModelbuildError]
) -> SeedsVerdict | None:
    """The spread over seeds, where it is asked for; what goes wrong joins `problems`."""
    if request.seeds is None:
        return None
    try:
        measured = measure_seeds(recipe, run, request.seeds)
    except UsageError:
        raise
    except ModelbuildError as error:
        problems.append(error)
        return None
    problems += measured.problems
    return measured


def _prepare(recipe: Recipe, lock: Lock, request: VerifyRequest) -> Run:
    """The run of a recipe that is locked as it stands. Raises OutOfDateError where it is not."""
    lock_request = LockRequest(
        workspace=request.workspace,
        store=request.store,
        check=True,
        paranoid=request.paranoid,
        locations=request.locations,
        on_message=request.observer.message,
    )
    recipes = request.workspace.with_upstream([recipe], lock)
    result = lock_recipes(recipes, lock, lock_request)
    check_current(result, recipes)
    build_request = BuildRequest(
        workspace=request.workspace,
        store=request.store,
        recipe=recipe.path,
        locked=True,
        dry_run=not (request.rebuild or request.explain),
        paranoid=request.paranoid,
        locations=request.locations,
        observer=request.observer,
    )
    return Run(request=build_request, locked=result, lock_request=lock_request)


def _absent(recipe: Recipe, result: LockResult) -> tuple[str, ...]:
    return tuple(
        name
        for name, data in recipe.data.items()
        if not isinstance(data, RecipeData) and (recipe.name, name) not in result.data
    )


def _verify_and_explain(identity: StageId, run: Run, request: VerifyRequest) -> StageVerdict:
    """With `explain`, build again only where no two builds on record differ."""
    wanted = request.explain
    if wanted is None:
        return verify_stage(identity, run, rebuild=request.rebuild)
    upstream = run.upstream(identity)
    known = pair_on_record(identity, run, upstream) if upstream is not None else None
    traced = known is not None and all(each.trace for each in known)
    again = wanted.needs_pair and not traced
    if again and upstream is not None:
        _say_what_can_be_found(identity, run, upstream)
    rebuild = request.rebuild or again
    verdict = verify_stage(identity, run, rebuild=rebuild)
    if upstream is None:
        return verdict
    try:
        return replace(verdict, explanation=explain_stage(identity, run, upstream, wanted))
    except ModelbuildError as error:
        return replace(verdict, problems=(*verdict.problems, error))


def _say_what_can_be_found(
    identity: StageId, run: Run, upstream: Mapping[str, Realisation]
) -> None:
    """Before a stage is built again: of rounds and fits no operation will be told."""
    counts = counts_on_record(identity, run, upstream)
    if counts and "step" not in counts:
        units = " and ".join(counts)
        run.request.observer.message(
            f"{identity}: it is built again to see in which {units} it goes apart; {ONLY_TORCH}"
        )


def _no_such_step(recipe: Recipe, stages: Mapping[str, StageVerdict]) -> list[UsageError]:
    """An error where a step was asked for that no stage of the recipe has."""
    explained = {
        name: each.explanation for name, each in stages.items() if each.explanation is not None
    }
    known = [each for each in explained.values() if each.no_such_step]
    nothing = [each for each in explained.values() if each.cause == NOTHING_RECORDED]
    if not known or len(known) + len(nothing) < len(explained):
        return []
    return [
        UsageError(
            f"modelbuild verify --explain: there is no step {known[0].step} in {recipe.name}",
            facts=[(name, each.cause) for name, each in explained.items()],
        )
    ]
