"""Open a stage's sandbox to look around in: the same folders, variables and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modelbuild.build.build import lock_for
from modelbuild.build.outputs import stage_named
from modelbuild.build.prepare import gather_inputs
from modelbuild.build.request import BuildRequest
from modelbuild.build.run import Run
from modelbuild.build.stage import Job, open_stage, stage_command
from modelbuild.sandbox.lease import leased_gpus
from modelbuild.spec.derivation import StageId, upstream_stages


def open_shell(request: BuildRequest, stage: str | None, argv: Sequence[str]) -> int:
    """Build what the stage reads, then run `argv` in its sandbox. Returns its exit code.

    Nothing that it writes is kept.
    """
    recipe, locked, lock_request = lock_for(request)
    identity = stage_named(recipe, stage)
    run = Run(request=request, locked=locked, lock_request=lock_request)
    needed = _all_upstream(identity, run)
    for each in locked.derivations:
        if each in needed:
            run.realise(each)
    upstream = run.upstream(identity)
    assert upstream is not None
    outputs = {name: each.path(request.store) for name, each in upstream.items()}
    inputs, _ = gather_inputs(identity, locked, lock_request, outputs)
    job = Job(
        identity=identity,
        derivation=locked.derivations[identity],
        resolved=run.resolve(identity, upstream),
        inputs=inputs,
    )
    site = run.site(recipe.name)
    request.observer.message(f"{identity} runs: {' '.join(inputs.arguments())}")

    def waiting(what: str) -> None:
        request.observer.message(f"{identity}: waiting for {what}")

    with leased_gpus(recipe.hardware, waiting) as gpus, open_stage(job, site) as (mounts, _):
        own = stage_command(replace(job, gpus=gpus), site)
        command = replace(own, argv=argv, interactive=True)
        return site.sandbox.run(mounts, command, lambda _: None).exit_code


def _all_upstream(identity: StageId, run: Run) -> set[StageId]:
    found: set[StageId] = set()
    waiting = [identity]
    while waiting:
        each = waiting.pop()
        recipe = run.locked.recipes[each.recipe]
        stage = recipe.stages[each.stage]
        new = set(upstream_stages(recipe, stage, run.locked.recipes).values()) - found
        found |= new
        waiting += new
    return found
