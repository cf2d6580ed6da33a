"""What must be there before a stage can run: machine, interpreter, environment, inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from modelbuild.build.inputs import StageInputs
from modelbuild.build.stage import Site, isolation_sandbox
from modelbuild.locking.inputs import source_context
from modelbuild.locking.lock import LockResult
from modelbuild.locking.request import LockRequest
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sandbox.shipped_runtime import runtime_folder
from modelbuild.sources.data import Resolved, check_unchanged, realise
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import LockedEnvironment
from modelbuild.spec.recipe import Recipe


def make_site(
    recipe: Recipe,
    locked: LockResult,
    request: LockRequest,
    isolation: Isolation,
    *,
    keep_failed: bool = False,
) -> Site:
    """Check the machine, then make the environment. Raises UnavailableError before any work."""
    from modelbuild.environment.fingerprint import check_fingerprint
    from modelbuild.environment.interpreter import realise_interpreter
    from modelbuild.environment.realise import realise_environment
    from modelbuild.sandbox.machine import check_hardware, read_numeric_class

    check_hardware(recipe)
    runtime = runtime_folder(locked.entries[recipe.name].runtime)
    sandbox = isolation_sandbox(isolation)
    sandbox.check()
    environment = locked.environment(recipe.name)
    store, say = request.store, request.on_message
    base, layers = _base_layers(environment, request)
    interpreter = realise_interpreter(environment.python, environment.interpreters, store, base)
    path = realise_environment(environment, interpreter, store, say, layers)
    for used in (interpreter.path, path):
        check_fingerprint(used)
    return Site(
        workspace=request.workspace.root,
        store=store,
        sandbox=sandbox,
        interpreter=interpreter,
        environment=path,
        runtime=runtime,
        numeric_class=read_numeric_class(recipe.hardware, interpreter.digest),
        keep_failed=keep_failed,
    )


def _base_layers(
    environment: LockedEnvironment, request: LockRequest
) -> tuple[Path | None, list[Path]]:
    """Where the base interpreter is, which is as locked, and copies of what is taken from it."""
    if environment.base == "host":
        return None, []
    from modelbuild.environment.base import find_base
    from modelbuild.environment.layers import check_base, realise_distribution

    store, say = request.store, request.on_message
    base = find_base(environment.python, request.locations)
    check_base(environment, base, store)
    layers = [
        realise_distribution(each, lambda: base, store, say) for each in environment.distributions
    ]
    return base.python, layers


def gather_inputs(
    identity: StageId, locked: LockResult, request: LockRequest, outputs: Mapping[str, Path]
) -> tuple[StageInputs, Callable[[], None]]:
    """The inputs of a stage, fetched if need be, and the check that they did not change.

    `outputs` are those of the upstream stages by input name (`stages.NAME`, `data.NAME`).
    """
    recipe = locked.recipes[identity.recipe]
    stage = recipe.stages[identity.stage]
    pinned = locked.entries[recipe.name]
    context = source_context(recipe, locked.environment(recipe.name), request)
    found: dict[str, Resolved] = {}
    for name in stage.data:
        if f"data.{name}" not in outputs:
            here = locked.data.get((recipe.name, name))
            found[name] = (
                here
                if here and here.in_place
                else realise(name, recipe.data[name], pinned.data[name], context)
            )
    paths = {name: resolved.path for name, resolved in found.items()}
    built = {name: outputs[f"data.{name}"] for name in stage.data if f"data.{name}" in outputs}
    inputs = StageInputs(
        recipe=recipe,
        stage=stage,
        locked=pinned,
        data={**paths, **built},
        upstream={name: outputs[f"stages.{name}"] for name in stage.stages},
    )

    def check() -> None:
        for name, resolved in found.items():
            check_unchanged(name, resolved, context, paranoid=request.paranoid)

    return inputs, check
