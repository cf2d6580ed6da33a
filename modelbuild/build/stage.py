"""Build one stage: snapshot, sandbox, checks, store, record."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.inputs import StageInputs
from modelbuild.build.log import StageLog, log_folder
from modelbuild.build.trace import ask, keep
from modelbuild.errors import StageFailedError
from modelbuild.sandbox.gpus import Gpu, other_programs
from modelbuild.sandbox.isolation import Command, Isolation, Mounts, Outcome, Sandbox
from modelbuild.sandbox.shipped_runtime import WITHOUT_PRELOAD, preload_library
from modelbuild.spec.canonical import Json
from modelbuild.spec.derivation import Derivation, StageId
from modelbuild.spec.metrics import MAX_BYTES, parse_metrics
from modelbuild.spec.recipe import PathData, Stage
from modelbuild.store.copies import copy_tree, set_times
from modelbuild.store.derivations import keep_derivation
from modelbuild.store.realisations import Realisation, Resources, record
from modelbuild.store.store import Store
from modelbuild.store.tensor_files import UnreadableTensorsError, count_parameters
from modelbuild.store.tree import stays_inside

if TYPE_CHECKING:
    from modelbuild.environment.interpreter import Interpreter
    from modelbuild.spec.numeric_class import NumericClass


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where stages run: what is the same for all stages of a recipe on this machine."""

    workspace: Path
    store: Store
    sandbox: Sandbox
    interpreter: Interpreter
    environment: Path
    runtime: Path
    numeric_class: NumericClass
    keep_failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One stage to build."""

    identity: StageId
    derivation: Derivation
    resolved: Derivation
    inputs: StageInputs
    gpus: Sequence[Gpu] = ()
    """Leased for it."""
    record: Mapping[str, Json] = field(default_factory=dict)
    """What to record of the training besides its steps."""


def build_stage(
    job: Job,
    site: Site,
    on_start: Callable[[Callable[[], str]], None],
    check_inputs: Callable[[], None],
) -> Realisation:
    """Run the stage and store its output. Raises StageFailedError; the log is kept either way.

    `on_start` gets a function that tells the last line that the stage printed. `check_inputs`
    raises if data that is used in place changed while the stage ran. The new realisation is
    recorded beside those that are there.
    """
    with open_stage(job, site) as (mounts, folder), _log_file(job, site) as log:
        on_start(lambda: log.last_line)
        try:
            tenants = {"began": other_programs(job.gpus)}
            outcome = site.sandbox.run(mounts, stage_command(job, site), log.write)
            tenants["ended"] = other_programs(job.gpus)
            recorded = keep(mounts.trace, log.path)
            metrics = _check(job, outcome, mounts.out, log, site)
        except StageFailedError as error:
            if site.keep_failed:
                raise _kept(error, folder, job, site) from None
            raise
        check_inputs()
        fresh = folder / "fresh"
        copy_tree(mounts.out, fresh)
        set_times(fresh)
        stored = site.store.publish(fresh, str(job.identity).replace(":", "-"))
    from importlib.metadata import version  # costs start-up time

    realisation = Realisation(
        name=str(job.identity),
        derivation=job.derivation.digest,
        resolved=job.resolved.digest,
        output=stored.tree.digest,
        files=stored.tree.files,
        bytes=stored.tree.bytes,
        parameters=_parameters(stored.path),
        metrics=metrics,
        isolation=site.sandbox.isolation.value,
        numeric_class=site.numeric_class.key,
        facts=site.numeric_class.facts,
        resources=Resources(
            wall_seconds=round(outcome.wall_seconds, 3),
            cpu_seconds=round(outcome.cpu_seconds, 3),
            peak_memory_bytes=outcome.peak_memory_bytes,
        ),
        log=str(log.path.relative_to(site.store.root)),
        interpreter=str(site.interpreter.digest),
        builder=version("modelbuild"),
        notes=(*_notes(outcome, site), *_shared(tenants), *recorded.notes),
        trace=str(recorded.folder.relative_to(site.store.root)) if recorded.folder else None,
    )
    keep_derivation(job.resolved, site.store)
    record(realisation, site.store)
    return realisation


def _notes(outcome: Outcome, site: Site) -> tuple[str, ...]:
    notes = [f"killed after the stage ended: {each}" for each in outcome.left_running]
    if not outcome.address_randomisation_off:
        notes.append("addresses were random: this system does not let a process fix them")
    if not preload_library(site.runtime).exists():
        notes.append(f"modelbuild was installed without a C compiler: {WITHOUT_PRELOAD}")
    return tuple(notes)


def _shared(tenants: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Programs of others on the stage's GPUs: they cost time and memory, and may cost bits."""
    for when, programs in tenants.items():
        for program in programs:
            yield f"a GPU was shared when the stage {when}: {program}"


@contextmanager
def open_stage(job: Job, site: Site) -> Iterator[tuple[Mounts, Path]]:
    """The folders of one run, in a temporary folder that is removed at the end."""
    with site.store.temporary("build") as folder:
        job.inputs.snapshot_code(site.workspace, folder / "src")
        set_times(folder / "src")
        context = folder / "context.json"
        context.write_bytes(job.inputs.context_file())
        out = folder / "out"
        out.mkdir()
        trace = folder / "trace"
        ask(trace, {"every": job.inputs.recipe.determinism.trace_every, **job.record})
        yield (
            Mounts(
                src=folder / "src",
                environment=site.environment,
                interpreter=site.interpreter.path,
                runtime=site.runtime,
                out=out,
                trace=trace,
                context=context,
                data=job.inputs.data_mounts,
                stages=job.inputs.upstream,
                whole_system=job.inputs.recipe.environment.base == "interpreter",
            ),
            folder,
        )


def stage_command(job: Job, site: Site) -> Command:
    return Command(
        argv=job.inputs.arguments(site.sandbox.free_port()),
        environment=job.inputs.variables(),
        threads=job.inputs.recipe.hardware.threads,
        processes=job.inputs.stage.processes,
        gpus=job.gpus,
    )


@contextmanager
def _log_file(job: Job, site: Site) -> Iterator[StageLog]:
    """A log of its own for every run: what failed keeps its log too."""
    with StageLog(log_folder(job.identity, site.workspace, site.store)) as log:
        yield log


def _check(job: Job, outcome: Outcome, out: Path, log: StageLog, site: Site) -> dict[str, float]:
    """The metrics of a stage that did what it declared. Raises StageFailedError."""
    recipe, stage = job.inputs.recipe, job.inputs.stage
    where = recipe.where(f"stages.{stage.name}.run")
    if outcome.exit_code != 0:
        raise _failed(job, outcome, log, site)
    if not any(out.iterdir()):
        raise StageFailedError(
            f"{where}: stage '{stage.name}' wrote no output",
            facts=[("wanted", "at least one file in {out}"), ("found", "an empty folder")],
            hint="Pass {out} to the command, or let it write below $MODELBUILD_OUT.",
        )
    if stage.metrics is None:
        return {}
    where = recipe.where(f"stages.{stage.name}.metrics")
    return _metrics(out, stage.metrics, where, stage)


def _parameters(output: Path) -> int | None:
    """A file that only looks like a model's must not fail a training that is done."""
    try:
        return count_parameters(output)
    except (UnreadableTensorsError, ValueError):
        return None


def _metrics(out: Path, name: str, where: str, stage: Stage) -> dict[str, float]:
    path = out / name
    try:
        inside = stays_inside(os.fsencode(out), os.fsencode(name))
        if not inside or not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"{name} is no file of the output")
        with path.open("rb") as file:
            return parse_metrics(file.read(MAX_BYTES + 1), name)
    except FileNotFoundError:
        there = ", ".join(sorted(os.listdir(path.parent))[:10]) if path.parent.exists() else ""
        raise StageFailedError(
            f"{where}: stage '{stage.name}' did not write its metrics file",
            facts=[("wanted", name), ("found", there)],
        ) from None
    except (ValueError, OSError) as error:
        raise StageFailedError(
            f"{where}: the metrics file of stage '{stage.name}' can't be read",
            facts=[("found", str(error))],
        ) from error


def _failed(job: Job, outcome: Outcome, log: StageLog, site: Site) -> StageFailedError:
    from modelbuild.sandbox.explain import explain_failure
    from modelbuild.sandbox.ranks import rank_failure

    recipe, stage = job.inputs.recipe, job.inputs.stage
    printed, exit_code, rank = log.end.decode(errors="replace"), outcome.exit_code, []
    if stage.processes > 1 and (failure := rank_failure(printed)):
        printed, exit_code = failure.printed, failure.exit_code
        rank = [("rank", f"{failure.rank} of {stage.processes}, from 0")]
    tail = "\n".join(printed.splitlines()[-15:])
    how = f"signal {-exit_code}" if exit_code < 0 else str(exit_code)
    folder = site.workspace / recipe.folder

    def in_workspace(path: str) -> bool:
        return (folder / path).exists() or (site.workspace / path).exists()

    declared = {data.path: name for name, data in recipe.data.items() if isinstance(data, PathData)}
    explained = explain_failure(log.end, in_workspace, declared, job.inputs.code)
    command = f"To read all that it printed: modelbuild log {recipe.name}:{stage.name}"
    return StageFailedError(
        f"{recipe.where(f'stages.{stage.name}.run')}: stage '{stage.name}' failed",
        facts=[*rank, ("exit code", how), ("printed", tail or "nothing")],
        hint=f"{explained}\n{command}" if explained else command,
    )


def _kept(error: StageFailedError, folder: Path, job: Job, site: Site) -> StageFailedError:
    """`--keep-failed`: move what the stage left to `failed/`, and say so."""
    target = site.store.root / "failed" / f"{folder.name}-{str(job.identity).replace(':', '-')}"
    target.mkdir(parents=True)
    for part in ("src", "out", "context.json"):
        (folder / part).rename(target / part)
    hint = f"{error.hint or ''}\nWhat it left is kept in: {target}".strip()
    return StageFailedError(error.summary, facts=error.facts, hint=hint)


def isolation_sandbox(isolation: Isolation) -> Sandbox:
    if isolation is Isolation.FULL:
        from modelbuild.sandbox.bubblewrap import Bubblewrap

        return Bubblewrap()
    from modelbuild.sandbox.unconfined import Unconfined

    return Unconfined()
