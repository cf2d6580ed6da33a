"""A run of a stage up to one step, whose operations are recorded; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelbuild.build.stage import Job, Site, open_stage, stage_command
from modelbuild.sandbox.isolation import Command
from modelbuild.sandbox.lease import leased_gpus
from modelbuild.spec.canonical import Json

MOST_BYTES = 1 << 30
_PERTURB = "165"
"""The C library fills what is allocated, and what is freed, with this byte."""


def record_step(job: Job, site: Site, step: int, knob: str | None) -> bytes:
    """The recordings of the processes that train; nothing where none got to the step's beginning.

    The folder they are in is the stage's to write: only regular files count.
    """
    wanted: dict[str, Json] = {"every": 0, "explain": {"step": step, "knob": knob}}
    with (
        leased_gpus(job.inputs.recipe.hardware, lambda _: None) as gpus,
        open_stage(replace(job, record=wanted), site) as (mounts, _),
    ):
        command = stage_command(replace(job, gpus=gpus), site)
        command = replace(command, environment=_turned(command, knob))
        site.sandbox.run(mounts, command, lambda _: None)
        text = b""
        for path in sorted(mounts.trace.glob("operations-*.jsonl")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    text += file.read(MOST_BYTES - len(text))
    return text


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
