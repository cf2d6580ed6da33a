"""`modelbuild lock`"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.progress import progress
from modelbuild.cli.targets import workspace_of
from modelbuild.locking.front import LockReport, lock
from modelbuild.locking.request import LockRequest
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "lock",
        "Pin code, data, packages and parameters of the recipes in model.lock, by content.\n"
        "What is locked stays as it is unless --update names it.",
        "modelbuild lock --update torch",
    )
    made.add_argument("recipes", type=Path, nargs="*", metavar="RECIPE")
    made.add_argument("--check", action="store_true", help="write nothing; exit 4 if out of date")
    made.add_argument(
        "--update",
        nargs="*",
        metavar="NAME",
        help="move packages or data tables, `python`, `base`, `runtime`; without names: everything",
    )
    made.add_argument("--json", action="store_true", help="print what changed as JSON")
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    workspace = workspace_of(options.recipes[0] if options.recipes else None)
    with progress(quiet=options.quiet) as observer:
        report = lock(
            [workspace.relative(path) for path in options.recipes],
            LockRequest(
                workspace=workspace,
                store=Store.open(),
                update=None if options.update is None else frozenset(options.update),
                check=options.check,
                recheck=not options.check,
                locations=read_locations(os.environ),
                on_message=observer.message,
            ),
        )
    if options.json:
        import json

        print(json.dumps(to_json(report), indent=2))
    elif not options.quiet:
        _summarise(report, check=options.check)
    return 0


def _summarise(report: LockReport, *, check: bool) -> None:
    for name, moved in report.changed.items():
        print(f"{name}: {'; '.join(moved)}", file=sys.stderr)
    for name in report.removed:
        print(f"{name}: removed", file=sys.stderr)
    if report.written:
        print("model.lock is written", file=sys.stderr)
    else:
        print("model.lock is up to date" + ("" if check else ", nothing changed"), file=sys.stderr)


def to_json(report: LockReport) -> dict[str, object]:
    """The documented record of `modelbuild lock --json`."""
    recipes = {
        name: {
            "changed": report.changed.get(name, []),
            "stages": {
                stage: {"derivation": str(entry.derivation)}
                for stage, entry in report.result.entries[name].stages.items()
            },
        }
        for name in sorted(report.result.recipes)
    }
    return {"written": report.written, "recipes": recipes, "removed": list(report.removed)}
