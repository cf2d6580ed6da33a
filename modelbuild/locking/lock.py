"""From recipes to the lock: pin every input by content and derive every stage.

What is locked stays as it is unless it is asked to move: packages, interpreter, bootstrap and
data. Code, parameters and hardware follow the recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from modelbuild.errors import InvalidInputError
from modelbuild.locking.inputs import lock_code, lock_data, lock_environment, lock_stage_code
from modelbuild.locking.request import LockRequest, out_of_date
from modelbuild.sandbox.shipped_runtime import current_runtime
from modelbuild.sources.data import Resolved
from modelbuild.sources.lock_on_disk import update_lock
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import Derivation, StageId, derive, upstream_stages
from modelbuild.spec.lock import Lock, LockedEnvironment, LockedRecipe, LockedStage, Upstream
from modelbuild.spec.lock_file import render_lock
from modelbuild.spec.lock_tidy import tidy
from modelbuild.spec.recipe import Recipe, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class LockResult:
    """What the lock should say about some recipes, and what was found on the way."""

    previous: Lock
    recipes: Mapping[str, Recipe]
    entries: Mapping[str, LockedRecipe]
    """For each of `recipes`."""
    environments: Mapping[str, LockedEnvironment]
    """Those of `entries`, by their key in the lock."""
    derivations: Mapping[StageId, Derivation]
    """Of every stage, in an order in which each comes after those it reads."""
    data: Mapping[tuple[str, str], Resolved]
    """Where the data of (recipe, table) is on this machine; what is absent here is missing."""

    @property
    def changed(self) -> bool:
        return any(self.stale(name) for name in self.entries)

    def stale(self, name: str) -> bool:
        """Whether the lock says something else about this recipe than the recipe does."""
        before, now = self.previous.recipes.get(name), self.entries[name]
        if before != now:
            return True
        locked = self.previous.environments[now.environment].interpreters
        return self.environments[now.environment].interpreters != locked

    def environment(self, recipe: str) -> LockedEnvironment:
        return self.environments[self.entries[recipe].environment]

    def lock(self) -> Lock:
        """The previous lock with these entries, and without what nothing names any more."""
        paths = {entry.path for entry in self.entries.values()}
        kept = {n: e for n, e in self.previous.recipes.items() if e.path not in paths}
        recipes = {**kept, **self.entries}
        environments = dict(self.previous.environments)
        for key, environment in self.environments.items():
            before = environments.get(key, environment)
            accepted = {*before.interpreters, *environment.interpreters}
            environments[key] = replace(environment, interpreters=tuple(sorted(accepted)))
        return tidy(replace(self.previous, environments=environments, recipes=recipes))


def lock_recipes(recipes: Mapping[str, Recipe], previous: Lock, request: LockRequest) -> LockResult:
    """Lock `recipes`, by name, with all that they build on.

    Raises OutOfDateError in a check that finds something which only `lock` itself can mend.
    """
    environments: dict[str, LockedEnvironment] = {}
    entries: dict[str, LockedRecipe] = {}
    data: dict[tuple[str, str], Resolved] = {}
    for recipe in recipes.values():
        inputs = _lock_inputs(recipe, previous, request)
        entries[recipe.name] = inputs.locked
        known = environments.get(inputs.environment.key, inputs.environment)
        accepted = {*known.interpreters, *inputs.environment.interpreters}
        environments[known.key] = replace(known, interpreters=tuple(sorted(accepted)))
        data |= {(recipe.name, name): resolved for name, resolved in inputs.data.items()}
    entries, derivations = _derive_stages(
        recipes, entries, environments, previous, request.workspace
    )
    return LockResult(
        previous=previous,
        recipes=recipes,
        entries=entries,
        environments=environments,
        derivations=derivations,
        data=data,
    )


def write_locked(
    recipes: Mapping[str, Recipe],
    result: LockResult,
    request: LockRequest,
    forget: Collection[str] = (),
) -> LockResult:
    """Write the lock of `result`, without the recipes to forget.

    Where another process wrote since it was read, lock again on top of that.
    """

    def merge(current: Lock) -> Lock:
        nonlocal result
        if render_lock(current) != render_lock(result.previous):
            result = lock_recipes(recipes, current, request)
        lock = result.lock()
        kept = {name: each for name, each in lock.recipes.items() if name not in forget}
        return tidy(replace(lock, recipes=kept))

    update_lock(request.workspace, merge)
    return result


def locked_before(recipe: Recipe, previous: Lock) -> LockedRecipe | None:
    """The recipe's entry in the lock, under this name or, renamed since, at this path."""
    return previous.recipes.get(recipe.name) or previous.recipe_at(recipe.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    locked: LockedRecipe
    environment: LockedEnvironment
    data: Mapping[str, Resolved]


def _lock_inputs(recipe: Recipe, previous: Lock, request: LockRequest) -> _Inputs:
    before = locked_before(recipe, previous)
    requires, environment = lock_environment(recipe, before, previous.environments, request)
    data, resolved = lock_data(recipe, before, environment, request)
    runtime = before.runtime if before and not request.updates("runtime") else current_runtime()
    locked = LockedRecipe(
        name=recipe.name,
        path=recipe.path,
        environment=environment.key,
        requires=requires,
        resolver=recipe.environment.resolver,
        runtime=runtime,
        code=lock_code(recipe, request.workspace),
        data=data,
        params=recipe.params,
        seed=recipe.determinism.seed,
        level=recipe.determinism.level,
        allow=tuple(sorted(set(recipe.determinism.allow))),
        tf32=recipe.determinism.tf32,
        hardware=_hardware(recipe),
        stages={},
        exclude_newer=recipe.environment.exclude_newer,
    )
    return _Inputs(locked=locked, environment=environment, data=resolved)


def _hardware(recipe: Recipe) -> dict[str, str | int]:
    hardware = recipe.hardware
    values: dict[str, str | int | None] = {
        "device": hardware.device.value,
        "threads": hardware.threads,
        "cpu": hardware.cpu,
        "mkl": hardware.mkl if hardware.mkl != "patched" else None,
        "gpu": hardware.gpu,
        "gpus": hardware.gpus or None,
        "gpu-memory": hardware.gpu_memory_bytes,
        "processes": hardware.processes if hardware.processes != 1 else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def stage_order(recipes: Mapping[str, Recipe]) -> list[StageId]:
    """Every stage after those it reads, across recipes. Raises InvalidInputError for a cycle."""
    order: list[StageId] = []
    open_: list[StageId] = []

    def visit(identity: StageId) -> None:
        if identity in order:
            return
        if identity in open_:
            cycle = " -> ".join(str(each) for each in [*open_[open_.index(identity) :], identity])
            where = recipes[identity.recipe].where(f"stages.{identity.stage}")
            raise InvalidInputError(
                f"{where}: stages wait for each other", facts=[("cycle", cycle)]
            )
        open_.append(identity)
        recipe = recipes[identity.recipe]
        for upstream in upstream_stages(recipe, recipe.stages[identity.stage], recipes).values():
            visit(upstream)
        open_.pop()
        order.append(identity)

    for recipe in recipes.values():
        for stage in recipe.stages:
            visit(StageId(recipe.name, stage))
    return order


def _derive_stages(
    recipes: Mapping[str, Recipe],
    pinned: Mapping[str, LockedRecipe],
    environments: Mapping[str, LockedEnvironment],
    previous: Lock,
    workspace: Workspace,
) -> tuple[dict[str, LockedRecipe], dict[StageId, Derivation]]:
    """The entries with their stages, and the derivations in the order of building."""
    derivations: dict[StageId, Derivation] = {}
    entries = dict(pinned)
    for identity in stage_order(recipes):
        recipe = recipes[identity.recipe]
        stage = recipe.stages[identity.stage]
        entry = entries[recipe.name]
        environment = environments[entry.environment]
        reads = upstream_stages(recipe, stage, recipes)
        upstream = {name: derivations[each].digest for name, each in reads.items()}
        before = locked_before(recipe, previous)
        known = before.stages.get(stage.name) if before else None
        derivation = None
        if before and known and before.code == entry.code:
            # The code is as it was, and the derivation holds the command: no need to read it.
            derivation = derive(recipe, stage, entry, environment, known.code, upstream)
            code = known.code
        if derivation is None or known is None or derivation.digest != known.derivation:
            code = lock_stage_code(recipe, stage, entry.code, workspace)
            derivation = derive(recipe, stage, entry, environment, code, upstream)
        derivations[identity] = derivation
        new = LockedStage(
            derivation=derivation.digest,
            run=stage.run,
            reads=_reads(stage, entry),
            upstream={
                name: Upstream(stage=str(each), derivation=upstream[name].short)
                for name, each in reads.items()
            },
            code=code,
            # Claims of another derivation are stale, and stay until the stage is built anew: who
            # takes a change back has them again.
            claims=known.claims if known else (),
            seeds=known.seeds if known else {},
        )
        entries[recipe.name] = _with_stage(entry, stage.name, new)
    return entries, derivations


def _reads(stage: Stage, entry: LockedRecipe) -> tuple[str, ...]:
    data = [f"data.{name}" for name in stage.data if name in entry.data]
    return tuple(sorted([*data, *(f"params.{name}" for name in stage.params)]))


def _with_stage(recipe: LockedRecipe, name: str, stage: LockedStage) -> LockedRecipe:
    return replace(recipe, stages={**recipe.stages, name: stage})


def check_current(result: LockResult, names: Collection[str]) -> None:
    """Raise OutOfDateError if the lock does not say what these recipes say."""
    stale = [name for name in sorted(names) if result.stale(name)]
    if stale:
        raise out_of_date([(name, ", ".join(changes(result, name))) for name in stale])


def changes(result: LockResult, name: str) -> list[str]:
    """What moved in one recipe, in a few words each."""
    before, now = result.previous.recipes.get(name), result.entries[name]
    if before is None:
        return ["not locked yet"]
    found = []
    for label, old, new in (
        ("code", before.code, now.code),
        ("data", before.data, now.data),
        ("parameters", before.params, now.params),
    ):
        keys = sorted(k for k in {**old, **new} if old.get(k) != new.get(k))
        if keys:
            found.append(f"{label}: {', '.join(keys)}")
    for label, attribute in (
        ("packages", "environment"),
        ("requirements", "requires"),
        ("runtime", "runtime"),
        ("seed", "seed"),
        ("level", "level"),
        ("allowed operations", "allow"),
        ("tf32", "tf32"),
        ("hardware", "hardware"),
        ("path", "path"),
    ):
        if getattr(before, attribute) != getattr(now, attribute):
            found.append(label)
    moved = sorted(k for k in now.stages if before.stages.get(k, now.stages[k]) != now.stages[k])
    if moved and not found:
        found.append(f"stages: {', '.join(moved)}")
    gone = sorted(set(before.stages) ^ set(now.stages))
    if gone:
        found.append(f"stages added or removed: {', '.join(gone)}")
    return found or ["interpreters"]
