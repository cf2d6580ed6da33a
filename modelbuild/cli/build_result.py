"""Run a build and print its result."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from modelbuild.build.build import build
from modelbuild.build.decided import what_decided
from modelbuild.build.request import BuildRequest, BuildResult, StageResult
from modelbuild.build.seed_record import Spread, on_record
from modelbuild.build.unchanged import remember
from modelbuild.cli.progress import progress
from modelbuild.cli.render import level_words, stage_line
from modelbuild.cli.spread import spread_json, spread_lines
from modelbuild.cli.targets import recipe_path, workspace_of
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.locations import read_locations
from modelbuild.spec.derivation import StageId
from modelbuild.store.roots import link_result
from modelbuild.store.store import Store


def build_and_print(options: Namespace, question: Sequence[str]) -> int:
    """Build as the options say; where nothing had to be done, keep the answer to `question`."""
    started = time.time_ns()
    named = Path(options.recipe)
    by_name = not (named.exists() or "/" in options.recipe or named.suffix == ".toml")
    workspace = workspace_of(None if by_name else named)
    store = Store.open()
    with progress(quiet=options.quiet) as observer:
        request = BuildRequest(
            workspace=workspace,
            store=store,
            recipe=recipe_path(options.recipe, workspace),
            isolation=Isolation(options.isolation),
            locked=options.locked,
            dry_run=options.dry_run,
            keep_failed=options.keep_failed,
            claim=options.claim,
            settings=options.set,
            paranoid=options.paranoid,
            locations=read_locations(os.environ),
            observer=observer,
        )
        result = build(request)
    links = [] if options.no_link or options.dry_run else _link(result, store)
    answer = {
        "err": "" if options.json or options.quiet else _summary(result),
        "out": f"{json.dumps(to_json(result), indent=2)}\n" if options.json else _path(result),
    }
    sys.stderr.write(answer["err"])
    sys.stdout.write(answer["out"])
    if _nothing_done(request, result):
        decided = what_decided(request, result)
        if decided:
            decided = decided._replace(paths=[*decided.paths, *links, os.path.abspath(named)])
            remember(str(store.root), question, decided, answer, since=started)
    return 0


def _nothing_done(request: BuildRequest, result: BuildResult) -> bool:
    plain = not (request.settings or request.dry_run or request.paranoid)
    return plain and all(stage.how == "valid" for stage in result.stages.values())


def _link(result: BuildResult, store: Store) -> list[str]:
    name = result.recipe.name
    links = {}
    for stage, outcome in result.own_stages().items():
        if outcome.path:
            links[Path.cwd() / f"result-{name}-{stage}"] = outcome.path
            if stage == result.recipe.last_stage:
                links[Path.cwd() / f"result-{name}"] = outcome.path
    for link, target in links.items():
        link_result(link, target, store)
    return [str(link) for link in links]


def _summary(result: BuildResult) -> str:
    width = max(len(str(identity)) for identity in result.stages)
    lines = []
    for identity, outcome in result.stages.items():
        lines.append(stage_line(str(identity), width, outcome))
        spread = spread_lines(_spread(identity, outcome, result))
        lines += [f"{'':<{width}}  {line}" for line in spread]
    for name, recipe in result.locked.recipes.items():
        if words := level_words(recipe.determinism):
            lines.append(f"{name}: {words}")
    return "".join(f"{line}\n" for line in lines)


def _spread(identity: StageId, outcome: StageResult, result: BuildResult) -> dict[str, Spread]:
    """How usual the result is among the seeds that the lock has on record."""
    if outcome.realisation is None:
        return {}
    locked = result.locked.entries[identity.recipe].stages[identity.stage]
    return on_record(locked, outcome.realisation.metrics)


def _path(result: BuildResult) -> str:
    path = result.own_stages()[result.recipe.last_stage].path
    return f"{path}\n" if path else ""


def to_json(result: BuildResult) -> dict[str, object]:
    """The documented record of `modelbuild build --json`."""
    stages = {}
    for name, each in result.own_stages().items():
        spread = _spread(StageId(result.recipe.name, name), each, result)
        stages[name] = {**_stage_json(each), "seeds": spread_json(spread)}
    determinism = result.recipe.determinism
    return {
        "recipe": result.recipe.name,
        "level": determinism.level.value,
        "allow": list(determinism.allow),
        "stages": stages,
    }


def _stage_json(result: StageResult) -> dict[str, object]:
    realisation, judgement = result.realisation, result.judgement
    return {
        "derivation": str(result.derivation),
        "how": result.how,
        "output": str(realisation.output) if realisation else None,
        "path": str(result.path) if result.path else None,
        "metrics": dict(realisation.metrics) if realisation else None,
        "parameters": realisation.parameters if realisation else None,
        "bytes": realisation.bytes if realisation else None,
        "seconds": realisation.resources.wall_seconds if realisation else None,
        "cpu_seconds": realisation.resources.cpu_seconds if realisation else None,
        "peak_memory_bytes": realisation.resources.peak_memory_bytes if realisation else None,
        "isolation": realisation.isolation if realisation else None,
        "numeric_class": realisation.numeric_class if realisation else None,
        "claim": str(judgement.agreement) if judgement and judgement.agreement else None,
        "claim_of_this_class": judgement.same_class if judgement else None,
        "log": realisation.log if realisation else None,
    }
