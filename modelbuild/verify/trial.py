"""A run of a stage up to one step, whose operations are recorded; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelbuild.build.stage import Job, Site, open_stage, stage_command
from modelbuild.errors import InvalidInputError
from modelbuild.sandbox.isolation import Command
from modelbuild.sandbox.lease import leased_gpus
from modelbuild.spec.canonical import Json
from modelbuild.verify.operations import Recording, read_recordings

_PERTURB = "165"
"""The C library fills what is allocated, and what is freed, with this byte."""


def run_to_step(job: Job, site: Site, step: int, knob: str | None) -> tuple[Recording, ...]:
    """The recordings of the processes that train; none where none got to the step's beginning."""
    wanted: dict[str, Json] = {"every": 0, "explain": {"step": step, "knob": knob}}
    with (
        leased_gpus(job.inputs.recipe.hardware, lambda _: None) as gpus,
        open_stage(replace(job, record=wanted), site) as (mounts, _),
    ):
        command = stage_command(replace(job, gpus=gpus), site)
        command = replace(command, environment=_turned(command, knob))
        site.sandbox.run(mounts, command, lambda _: None)
        found: list[Recording] = []
        for path in sorted(mounts.trace.glob("operations-*.jsonl")):
            try:
                found += read_recordings(path)
            except InvalidInputError:  # the stage's own code can write there too
                continue
    return tuple(found)


def _turned(command: Command, knob: str | None) -> Mapping[str, str]:
    """The variables that a library reads when it is loaded, before the bootstrap can turn it."""
    environment = command.environment
    if knob == "threads":
        return {
            name: "1" if name.endswith("_NUM_THREADS") else value
            for name, value in environment.items()
        }
    if knob == "memory":
        return {**environment, "MALLOC_PERTURB_": _PERTURB}
    return environment
