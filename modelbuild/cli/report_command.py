"""`modelbuild report`"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.progress import progress
from modelbuild.cli.targets import recipe_path, workspace_naming
from modelbuild.errors import UsageError
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store, write_atomically


def parser() -> Parser:
    made = Parser(
        "report",
        "Write a page about recipes: verification, lineage, metrics, curves, runs, history,\n"
        "packages, hardware. One file that needs no network, to attach to a pull request.",
        "modelbuild report digits -o digits.html",
    )
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help="file, folder or name")
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="where to write it (report.html)",
    )
    made.add_argument("--rebuild", action="store_true", help="build again first, and compare")
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    folder = options.output.parent
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder} to write {options.output.name} to",
            hint=f"To make it: mkdir -p {shlex.quote(str(folder))}",
        )
    from modelbuild.cli.report.page import render_page
    from modelbuild.review.report import gather_report
    from modelbuild.verify.verify import VerifyRequest

    workspace = workspace_naming(options.recipes[0] if options.recipes else None)
    with progress(quiet=options.quiet) as observer:
        report = gather_report(
            VerifyRequest(
                workspace=workspace,
                store=Store.open(),
                recipes=[recipe_path(each, workspace) for each in options.recipes],
                rebuild=options.rebuild,
                locations=read_locations(os.environ),
                observer=observer,
            )
        )
    write_atomically(options.output, render_page(report).encode())
    for error in report.verified.problems:
        print(f"the page says: {error}", file=sys.stderr)
    if not options.quiet:
        print(options.output)
    return 0
