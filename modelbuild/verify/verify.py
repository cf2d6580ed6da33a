"""Check what the lock says: against the recipes, against the store, and by building again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelbuild.build.agreement import Agreement, Compared, breaks, result_of
from modelbuild.build.claims import Judgement, check_claim, not_reproducible
from modelbuild.build.expectation import Expectation
from modelbuild.build.request import BuildRequest, Observer, Silent
from modelbuild.build.run import Run
from modelbuild.errors import (
    ModelbuildError,
    NotReproducibleError,
    OutOfDateError,
    UsageError,
    deciding_exit_code,
)
from modelbuild.locking.inputs import base_problems
from modelbuild.locking.lock import LockResult, check_current, lock_recipes
from modelbuild.locking.request import LockRequest
from modelbuild.sources.lock_on_disk import read_whole_lock
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Claim, Lock
from modelbuild.spec.recipe import Determinism, Level, Recipe, RecipeData
from modelbuild.store.realisations import Realisation, altered
from modelbuild.store.store import Store
from modelbuild.store.tree import scan_tree
from modelbuild.verify.compare import TreeComparison, compare_trees
from modelbuild.verify.seeds import SeedsVerdict, measure_seeds, seeds_on_record
from modelbuild.verify.steps import StepComparison, traces_of

if TYPE_CHECKING:
    from modelbuild.build.stage import Site


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyRequest:
    workspace: Workspace
    store: Store
    recipes: Collection[PurePosixPath] = ()
    """Relative to the workspace; empty: everything in the lock."""
    rebuild: bool = False
    seeds: int | None = None
    """Build this many seeds of each recipe, and keep the spread of their metrics in the lock."""
    paranoid: bool = False
    locations: Mapping[str, Path] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuild:
    """A second build of a stage, held against the first."""

    compared: Compared
    against: str
    """`store` or `claim`: what it was compared with."""
    same_class: bool
    first_class: str
    second_class: str
    second: Path
    comparison: TreeComparison | None
    """Where both outputs are at hand and differ."""
    expectation: Expectation | None
    """What was said beforehand; None where the first result is of the same class."""
    steps: StepComparison | None = None
    """Where both outputs are at hand and differ: where the trainings first went apart."""

    @property
    def agreement(self) -> Agreement:
        return self.compared.agreement

    def breaks(self, level: Level) -> bool:
        """Whether it fails the recipe's promise, which holds within one numeric class."""
        return self.same_class and breaks(self.compared, level)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageVerdict:
    store: str
    """`intact`, `absent` or `corrupt`."""
    claim: str
    """`holds` (identical), `within tolerance` or `different` where the level allows that, else
    `broken`; `other class`, `missing`, or `unchecked` (no output here)."""
    rebuild: Rebuild | None = None
    problems: tuple[ModelbuildError, ...] = ()
    notes: tuple[str, ...] = ()
    """Of the builds that were looked at, each once: a setting that the script undid, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeVerdict:
    lock: str
    """`current`, `stale` or `unchecked` (some of its data is not on this machine)."""
    absent: tuple[str, ...] = ()
    """Data tables that are not on this machine."""
    determinism: Determinism | None = None
    """What the recipe promises; None where it can't be read."""
    stages: Mapping[str, StageVerdict] = field(default_factory=dict)
    seeds: SeedsVerdict | None = None
    """None where the lock is stale."""
    problems: tuple[ModelbuildError, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    recipes: Mapping[str, RecipeVerdict]

    @property
    def problems(self) -> list[ModelbuildError]:
        """Everything that does not hold."""
        found: list[ModelbuildError] = []
        for recipe in self.recipes.values():
            found += recipe.problems
            for stage in recipe.stages.values():
                found += stage.problems
        return found

    @property
    def exit_code(self) -> int:
        return deciding_exit_code(problem.exit_code for problem in self.problems)


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
            stages[identity.stage] = _verify_stage(identity, run, rebuild=request.rebuild)
            continue
        try:
            run.realise(identity)
        except ModelbuildError as error:
            problems.append(error)
            run.finish(identity, None, "would build")
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
        dry_run=not request.rebuild,
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


def _verify_stage(identity: StageId, run: Run, *, rebuild: bool) -> StageVerdict:
    upstream = run.upstream(identity)
    first = run.valid(identity, run.resolve(identity, upstream)) if upstream is not None else None
    problems: list[ModelbuildError] = []
    state = "intact" if first else "absent"
    if first:
        found = scan_tree(first.path(run.request.store)).digest
        if found != first.output:
            state = "corrupt"
            problems.append(altered(first, found, first.path(run.request.store)))
    claims = run.claims(identity)
    if not claims:
        problems.append(_no_claim(identity))
    claim = "unchecked" if claims else "missing"
    if first:
        claim = _hold_against_claims(identity, run, first, problems)
    sound = first if state == "intact" else None
    second = rebuilt = None
    if rebuild and upstream is not None:
        if first and not sound:
            run.request.store.set_aside(first.path(run.request.store))
        second, rebuilt = _rebuild(identity, run, upstream, sound, problems)
    # Without a rebuild, an altered output still tells which outputs were made from it.
    run.finish(identity, sound or second or (None if rebuild else first), "valid")
    notes = [note for each in (first, second) if each for note in each.notes]
    return StageVerdict(
        store=state,
        claim=claim,
        rebuild=rebuilt,
        problems=tuple(problems),
        notes=tuple(dict.fromkeys(notes)),
    )


def _hold_against_claims(
    identity: StageId, run: Run, realisation: Realisation, problems: list[ModelbuildError]
) -> str:
    """How a realisation relates to its claims, in a word; what does not hold joins `problems`."""
    level = run.locked.recipes[identity.recipe].determinism.level
    judgement = run.judge(identity, realisation)
    problems += _untrue_claims(identity, run.claims(identity), realisation)
    if judgement.broken(level):
        problems.append(not_reproducible(identity, judgement, realisation, run.request.store))
    return _claim_word(judgement, level)


def _rebuild(
    identity: StageId,
    run: Run,
    upstream: Mapping[str, Realisation],
    first: Realisation | None,
    problems: list[ModelbuildError],
) -> tuple[Realisation | None, Rebuild | None]:
    """Build again; what does not come out as before joins `problems`."""
    level = run.locked.recipes[identity.recipe].determinism.level
    try:
        resolved = run.resolve(identity, upstream)
        site = run.site(identity.recipe)
        problems += _faults(identity, run, site, level)
        expected = run.expect(identity, site, first)
        second = run.build(identity, resolved, upstream, site)
    except ModelbuildError as error:
        problems.append(error)
        return None, None
    rebuilt = _compare(identity, run, first, second, expected)
    if rebuilt and rebuilt.breaks(level):
        problems.append(_not_reproducible(identity, rebuilt))
    elif first is not None and second.output != first.output:
        # The first may be of another class: the claim of this one counts too.
        judgement = run.judge(identity, second)
        if judgement.broken(level):
            problems.append(not_reproducible(identity, judgement, second, run.request.store))
    return second, rebuilt


def _faults(identity: StageId, run: Run, site: Site, level: Level) -> list[ModelbuildError]:
    """That this machine computes other bits than its class does, said once for each recipe."""
    if identity.recipe in run.probed:
        return []
    run.say_faults(identity, site)
    probed = run.probe(identity.recipe, site)
    if not probed or not probed.differing or level is not Level.BITWISE:
        return []
    from modelbuild.build.probes import probes_differ

    return [probes_differ(probed)]


def _untrue_claims(
    identity: StageId, claims: tuple[Claim, ...], realisation: Realisation
) -> list[ModelbuildError]:
    found: list[ModelbuildError] = []
    for claim in claims:
        try:
            check_claim(identity, claim, realisation)
        except ModelbuildError as error:
            found.append(error)
    return found


def _claim_word(judgement: Judgement, level: Level) -> str:
    if judgement.agreement is None:
        return "missing"
    if judgement.agreement is Agreement.IDENTICAL:
        return "holds"
    if not judgement.same_class:
        return "other class"
    return "broken" if judgement.broken(level) else str(judgement.agreement)


def _compare(
    identity: StageId,
    run: Run,
    first: Realisation | None,
    second: Realisation,
    expected: Expectation | None,
) -> Rebuild | None:
    """The second build against the first output, else against a claim; None without either."""
    store = run.request.store
    if first:
        same = first.numeric_class == second.numeric_class
        results = result_of(first, store), result_of(second, store)
        compared = run.compare(identity, *results, same_class=same)
        identical = compared.agreement is Agreement.IDENTICAL
        return Rebuild(
            compared=compared,
            against="store",
            same_class=same,
            first_class=first.numeric_class,
            second_class=second.numeric_class,
            second=second.path(store),
            comparison=(
                None if identical else compare_trees(first.path(store), second.path(store))
            ),
            expectation=expected,
            steps=None if identical else traces_of(first, second, store),
        )
    judgement = run.judge(identity, second)
    if judgement.claim is None or judgement.compared is None:
        return None
    return Rebuild(
        compared=judgement.compared,
        against="claim",
        same_class=judgement.same_class,
        first_class=judgement.claim.numeric_class,
        second_class=second.numeric_class,
        second=second.path(store),
        comparison=None,
        expectation=expected,
    )


def _no_claim(identity: StageId) -> OutOfDateError:
    return OutOfDateError(
        f"model.lock has no claim for {identity}",
        hint="To build it and add the claim: modelbuild build",
    )


def _not_reproducible(identity: StageId, rebuild: Rebuild) -> NotReproducibleError:
    return NotReproducibleError(
        f"{identity} is not reproducible: built again on the same numeric class, "
        f"it came out {rebuild.agreement}",
        facts=[("class", rebuild.second_class), ("kept", str(rebuild.second))],
    )
