"""All that a page about a workspace's recipes shows, gathered from lock, store and git."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelbuild.errors import ModelbuildError, UsageError
from modelbuild.review.curves import CurveLog, read_curves
from modelbuild.review.history import History, history
from modelbuild.review.revisions import git
from modelbuild.review.runs import Run, runs
from modelbuild.sources.lock_on_disk import read_whole_lock
from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.canonical import Json
from modelbuild.spec.derivation import StageId
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock, LockedEnvironment, LockedRecipe, LockedStage
from modelbuild.spec.recipe import Recipe
from modelbuild.store.derivations import find_derivation
from modelbuild.store.store import Store
from modelbuild.verify.verdict import RecipeVerdict, StageVerdict, VerifyReport
from modelbuild.verify.verify import VerifyRequest, verify

COMPARED_CURVES = 5
"""Runs whose curves are drawn in one chart, the current one among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOfStage:
    """A run with the settings of all that it came from."""

    run: Run
    here: bool
    """Whether its output is in the store."""
    settings: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCurves:
    """A log of one run."""

    run: RunOfStage
    current: bool
    log: CurveLog


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredCurves:
    """One file that a stage declares."""

    file: str
    logs: tuple[RunCurves, ...]
    """Of the current run first, then of the latest others."""
    missing: str | None
    """Why the current run has none."""
    more: int
    """Runs that are not among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    id: StageId
    locked: LockedStage
    verdict: StageVerdict | None
    current: RunOfStage | None
    """The run of the locked derivation on record here."""
    runs: tuple[RunOfStage, ...]
    """Latest first."""
    curves: tuple[DeclaredCurves, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeReport:
    name: str
    verdict: RecipeVerdict
    recipe: Recipe | None
    """None where it can't be read."""
    locked: LockedRecipe | None
    environment: LockedEnvironment | None
    stages: tuple[StageReport, ...]
    history: History | None
    """None where git knows of none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    id: str
    same: bool
    """Whether the workspace's lock is the one of this commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    recipes: tuple[RecipeReport, ...]
    lock: Lock
    lock_digest: Digest
    commit: Commit | None
    verified: VerifyReport
    folders: Mapping[str, str]
    """What is said in the place of this machine's folders."""


def gather_report(request: VerifyRequest) -> Report:
    """Verify, and gather what the recipes' records say. Raises as `verify` does."""
    verified = verify(request)
    workspace, store = request.workspace, request.store
    lock = read_whole_lock(workspace)
    everything = runs(store)
    known = {each.realisation.output: each for each in reversed(everything)}
    found = [_with_lineage(each, known, store) for each in everything]
    return Report(
        recipes=tuple(
            _recipe(name, verdict, lock, found, request)
            for name, verdict in verified.recipes.items()
        ),
        lock=lock,
        lock_digest=Digest.of(workspace.lock_bytes()),
        commit=_commit(workspace),
        verified=verified,
        folders={str(store.root): "STORE", f"{workspace.root}/": "", str(workspace.root): "."},
    )


def _with_lineage(run: Run, known: Mapping[Digest, Run], store: Store) -> RunOfStage:
    return RunOfStage(
        run=run,
        here=run.realisation.path(store).exists(),
        settings=_settings(run, known, store),
    )


def _settings(run: Run, known: Mapping[Digest, Run], store: Store) -> dict[str, Json]:
    """What a stage saw itself goes before what those upstream of it saw."""
    derivation = find_derivation(run.realisation.resolved, store)
    found: dict[str, Json] = {}
    for output in derivation.upstream.values() if derivation else ():
        if made := known.get(output):
            found |= _settings(made, known, store)
    return found | run.settings


def _recipe(
    name: str,
    verdict: RecipeVerdict,
    lock: Lock,
    found: Sequence[RunOfStage],
    request: VerifyRequest,
) -> RecipeReport:
    locked = lock.recipes.get(name)
    recipe = _read(locked.path, request.workspace) if locked else None
    return RecipeReport(
        name=name,
        verdict=verdict,
        recipe=recipe,
        locked=locked,
        environment=lock.environments.get(locked.environment) if locked else None,
        stages=tuple(
            _stage(StageId(name, stage), locked, verdict, recipe, found, request.store)
            for stage in _in_order(locked, recipe)
        )
        if locked
        else (),
        history=_history(name, request.workspace),
    )


def _read(path: PurePosixPath, workspace: Workspace) -> Recipe | None:
    try:
        return workspace.read_recipe(path)
    except ModelbuildError:
        return None  # the verdict says so


def _in_order(locked: LockedRecipe, recipe: Recipe | None) -> list[str]:
    """The locked stages as they run, where the recipe tells."""
    order = list(recipe.stages) if recipe else []
    return sorted(locked.stages, key=lambda n: order.index(n) if n in order else len(order))


def _stage(
    identity: StageId,
    recipe: LockedRecipe,
    verdict: RecipeVerdict,
    written: Recipe | None,
    found: Sequence[RunOfStage],
    store: Store,
) -> StageReport:
    locked = recipe.stages[identity.stage]
    own = tuple(each for each in found if each.run.realisation.name == str(identity))
    current = _current(locked, found)
    stage = written.stages.get(identity.stage) if written else None
    return StageReport(
        id=identity,
        locked=locked,
        verdict=verdict.stages.get(identity.stage),
        current=current,
        runs=own,
        curves=tuple(_curves(file, current, own, store) for file in stage.curves) if stage else (),
    )


def _current(locked: LockedStage, found: Sequence[RunOfStage]) -> RunOfStage | None:
    """Of several the one that is here, is claimed, and is isolated; then the latest."""
    claimed = {claim.output for claim in locked.current_claims}
    fitting = [each for each in found if each.run.realisation.derivation == locked.derivation]

    def rank(each: RunOfStage) -> tuple[bool, bool, bool]:
        realisation = each.run.realisation
        return each.here, realisation.output in claimed, realisation.isolation == "full"

    return max(fitting, key=rank, default=None)


def _curves(
    file: str, current: RunOfStage | None, own: Sequence[RunOfStage], store: Store
) -> DeclaredCurves:
    """Each output once: runs of the same bits have the same curves."""
    outputs = set()
    logs: list[RunCurves] = []
    more = 0
    missing = "not built here" if current is None else None
    for each in ([current] if current else []) + [each for each in own if each is not current]:
        output = each.run.realisation.output
        if output in outputs or (each is not current and not each.here):
            continue
        outputs.add(output)
        if len(logs) >= COMPARED_CURVES:
            more += 1
            continue
        try:
            log = read_curves(each.run.realisation.path(store) / file)
        except OSError:
            if each is current:
                missing = f"not in the output: {file}" if each.here else "not on this machine"
            continue
        logs.append(RunCurves(run=each, current=each is current, log=log))
    return DeclaredCurves(file=file, logs=tuple(logs), missing=missing, more=more)


def _history(name: str, workspace: Workspace) -> History | None:
    try:
        return history(name, workspace)
    except UsageError:
        return None  # no git, no repository, or never committed


def _commit(workspace: Workspace) -> Commit | None:
    try:
        code, head, _ = git(["rev-parse", "--verify", "--quiet", "HEAD"], workspace)
        if code != 0:
            return None
        _, data, _ = git(["show", "--no-textconv", f"HEAD:./{LOCK_NAME}"], workspace)
    except UsageError:
        return None
    return Commit(id=head.decode().strip(), same=data == workspace.lock_bytes())
