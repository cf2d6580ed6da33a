"""`modelbuild build`"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.build.build import build
from modelbuild.build.request import BuildRequest, BuildResult, StageResult
from modelbuild.cli.arguments import Parser, workspace_of
from modelbuild.cli.progress import progress
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.locations import read_locations
from modelbuild.store.roots import link_result
from modelbuild.store.store import Store


def run(arguments: Sequence[str]) -> int:
    parser = Parser(
        "build",
        "Build every stage of a recipe that is not built yet, in a sandbox, and print where its\n"
        "last stage's output is. What is built already is not built again.",
        "modelbuild build recipe.toml",
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipe.toml"))
    parser.add_argument("--locked", action="store_true", help="fail if model.lock would change")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be built")
    parser.add_argument("--keep-failed", action="store_true", help="keep what a failed stage left")
    parser.add_argument(
        "--claim", action="store_true", help="add a claim for this machine's numeric class"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an experiment: params.lr=0.01; never becomes a claim",
    )
    parser.add_argument(
        "--isolation",
        choices=["full", "none"],
        default="full",
        help="none: without a sandbox, for machines that can't have one; never becomes a claim",
    )
    parser.add_argument("--paranoid", action="store_true", help="hash data in place again")
    parser.add_argument("--no-link", action="store_true", help="write no result-... links here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    options = parser.parse_args(arguments)
    workspace = workspace_of(options.recipe)
    store = Store.open()
    with progress(quiet=options.quiet) as observer:
        result = build(
            BuildRequest(
                workspace=workspace,
                store=store,
                recipe=workspace.relative(options.recipe),
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
        )
    if not options.no_link and not options.dry_run:
        _link(result, store)
    if options.json:
        import json

        print(json.dumps(to_json(result), indent=2))
    else:
        if not options.quiet:
            _summarise(result)
        _print_path(result)
    return 0


def _link(result: BuildResult, store: Store) -> None:
    name = result.recipe.name
    for stage, outcome in result.own_stages().items():
        if outcome.path:
            link_result(Path.cwd() / f"result-{name}-{stage}", outcome.path, store)
            if stage == result.recipe.last_stage:
                link_result(Path.cwd() / f"result-{name}", outcome.path, store)


def _summarise(result: BuildResult) -> None:
    from modelbuild.cli.render import stage_line

    width = max(len(str(identity)) for identity in result.stages)
    for identity, outcome in result.stages.items():
        print(stage_line(str(identity), width, outcome), file=sys.stderr)


def _print_path(result: BuildResult) -> None:
    path = result.own_stages()[result.recipe.last_stage].path
    if path:
        print(path)


def to_json(result: BuildResult) -> dict[str, object]:
    """The documented record of `modelbuild build --json`."""
    stages = {name: _stage_json(each) for name, each in result.own_stages().items()}
    return {"recipe": result.recipe.name, "stages": stages}


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
